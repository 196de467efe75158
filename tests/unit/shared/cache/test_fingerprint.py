"""Fingerprint: equal requests and no others have the same one."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.job.request import Request, request_from

BASE: dict[str, Any] = {"prompt": "2 + 2?"}
USER = {"role": "user", "content": "2 + 2?"}
PART = {"type": "text", "text": "2 + 2?"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
}}}  # fmt: skip


def of(model: str = "m", **fields: Any) -> str:
    words = {} if fields.keys() & {"prompt", "messages", "input"} else BASE
    return fingerprint(request_from(words | fields), model)


@pytest.mark.parametrize(
    "same",
    [
        {"messages": [USER]}, {"messages": [{"content": "2 + 2?", "role": "user"}]},
        {"messages": [{"role": "user", "content": [PART]}]},
        {"messages": [{"role": "user", "content": "2 + 2?", "name": None}]},
        {"messages": [{"role": "user",
                       "content": [{**PART, "cache_control": {"type": "ephemeral"}}]}]},
        {"user": "u"}, {"priority": "bulk"}, {"metadata": {"a": 1}}, {"deadline_s": 5},
        {"cache": {"mode": "off"}}, {"cache": {"mode": "exact", "ttl_s": 5}}, {"fallback": False},
        {"on_unknown": "fail"}, {"stream": True}, {"share": False}, {"idempotency_key": "k"},
        {"task": "chat"}, {"prefer": "speed"}, {"max_cost_usd": "1"}, {"tier": "free"},
        {"params": {"temperature": None}}, {"params": {"n": 1}},
        {"params": {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "flex",
                    "prompt_cache_key": "k", "safety_identifier": "s"}},
    ],
    ids=str,
)  # fmt: skip
def test_what_no_model_sees_makes_no_difference(same: dict[str, Any]) -> None:
    assert of(**same) == of()


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "2 + 2? "}, {"prompt": "2 + 2?\u200b"}, {"tenant": "acme"},
        {"model": "another"}, {"input": "2 + 2?"}, {"params": {"temperature": 0}},
        {"params": {"seed": 1}}, {"params": {"logprobs": True}}, {"params": {"unheard_of": 0}},
        {"messages": [{"role": "system", "content": "2 + 2?"}]},
        {"messages": [{**USER, "name": "ann"}]}, {"messages": [USER, USER]},
        {"messages": [{"role": "user", "content": [PART, PART]}]},
        {"messages": [{"role": "user", "content": [{**PART, "citations": {"enabled": True}}]}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_the_answer_makes_another_question(other: dict[str, Any]) -> None:
    model = other.get("model", "m")
    assert of(model, **{k: v for k, v in other.items() if k != "model"}) != of()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"temperature": 1}, {"temperature": 1.0}), ({"temperature": 0}, {"temperature": -0.0}),
        ({"seed": 1, "top_p": 0.5}, {"top_p": 0.5, "seed": 1}), ({"stop": "x"}, {"stop": ["x"]}),
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"max_tokens": 9, "max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"logit_bias": {"1": 5, "2": 1}}, {"logit_bias": {"2": 1.0, "1": 5.0}}),
        ({"tools": [TOOL]}, {"tools": [{**TOOL, "cache_control": {"type": "ephemeral"}}]}),
    ],
    ids=str,
)  # fmt: skip
def test_params_of_one_meaning_are_one(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert of(params=one) == of(params=two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"top_k": 1}, {"top_k": 10}), ({"flag": True}, {"flag": 1}),
        ({"flag": "1"}, {"flag": 1}), ({"stop": ["a", "b"]}, {"stop": ["b", "a"]}),
        ({"stop": ["ab"]}, {"stop": ["a", "b"]}), ({"seed": 2**53}, {"seed": 2**53 + 1}),
        ({"tools": [TOOL]}, {}),
    ],
    ids=str,
)  # fmt: skip
def test_params_of_another_meaning_are_not(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert of(params=one) != of(params=two)


def test_the_dialect_counts_and_marks_of_the_cache_do_not() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    said = {"type": "text", "text": "a"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [said]}
    marked = {**result, "content": [{**said, **mark}], **mark}

    def form(*blocks: dict[str, Any], **params: Any) -> str:
        messages = [{"role": "user", "content": list(blocks)}]
        return of(dialect="anthropic", messages=messages, params=params)

    assert form(result, system=[said]) == form(marked, system=[{**said, **mark}], **mark)
    assert form(said) != of(messages=[{"role": "user", "content": [said]}])
    assert form(said, anthropic_beta=["a"]) != form(said)
    assert form(said, metadata={"user_id": "u"}, service_tier="auto") == form(said)


def test_the_order_of_messages_and_of_a_schemas_properties_counts() -> None:
    one, two = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert of(messages=[one, two]) != of(messages=[two, one])
    turned = copy.deepcopy(TOOL)
    parameters: Any = turned["function"]["parameters"]  # type: ignore[index]
    parameters["properties"] = dict(reversed(parameters["properties"].items()))
    assert of(params={"tools": [TOOL]}) != of(params={"tools": [turned]})


def test_one_text_to_embed_is_a_list_of_it() -> None:
    assert of(input="a") == of(input=["a"])
    assert of(input=["a", "b"]) != of(input=["b", "a"])


texts = st.text(min_size=1, max_size=6)
numbers = st.one_of(st.integers(-5, 5), st.floats(-2, 2).map(lambda n: round(n, 2)))
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant"]),
         "content": st.one_of(texts, st.lists(st.builds(lambda t: {"type": "text", "text": t},
                                                        texts), min_size=1, max_size=2))},
        optional={"name": st.one_of(st.none(), texts)},
    ),
    min_size=1, max_size=3,
)  # fmt: skip
params = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.one_of(st.none(), st.sampled_from([0, 0.0, 0.5, 1, 1.0])),
        "max_tokens": st.integers(1, 3), "seed": st.integers(0, 3), "stop": texts,
        "extra": st.dictionaries(texts, plain, max_size=3), "user": texts,
    },
)  # fmt: skip


def turned(value: Any) -> Any:
    """Return the value with the keys of every object in reverse order."""
    if isinstance(value, dict):
        return {key: turned(part) for key, part in reversed(value.items())}
    return [turned(part) for part in value] if isinstance(value, list) else value


def reworded(asked: list[dict[str, Any]], given: dict[str, Any]) -> dict[str, Any]:
    """Return the same request, written in another way wherever there is one."""
    said = []
    for message in turned(asked):
        content = message["content"]
        if isinstance(content, str):
            message["content"] = [{"text": content, "type": "text"}]
        elif len(content) == 1:
            message["content"] = content[0]["text"]
        said.append({"name": None} | message)
    others = {key: value for key, value in turned(given).items() if value is not None}
    for key, value in others.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and key != "seed":
            others[key] = float(value) if key == "temperature" else value
    if "max_tokens" in others:
        others["max_completion_tokens"] = others.pop("max_tokens")
    if "stop" in others:
        others["stop"] = [others["stop"]]
    return {"messages": said, "params": others | {"user": "another", "top_p": None}}


@given(messages, params)
def test_a_request_in_other_words_of_one_meaning_has_one_fingerprint(
    asked: list[dict[str, Any]], given: dict[str, Any]
) -> None:
    assert of(messages=asked, params=given) == of(**reworded(asked, given))


def meaning(request: Request) -> str:
    """Return what a request means, by a second and slow way, to compare with."""
    said: list[Any] = []
    for message in request.chat():
        kept = {key: value for key, value in message.items() if value is not None}
        content = kept["content"]
        if isinstance(content, list) and len(content) == 1:
            kept["content"] = content[0]["text"]
        said.append(kept)
    given = {key: value for key, value in request.params.items() if value is not None}
    given.pop("user", None)
    if "temperature" in given:
        given["temperature"] = float(given["temperature"])
    return json.dumps([request.tenant, said, given], sort_keys=True)


requests = st.builds(
    lambda asked, given, tenant: request_from(
        {"messages": asked, "params": given, "tenant": tenant}
    ),
    messages, params, st.sampled_from(["a", "b"]),
)  # fmt: skip


@given(requests, requests, st.sampled_from(["m", "n"]))
def test_two_requests_have_one_fingerprint_only_if_they_mean_the_same(
    one: Request, two: Request, model: str
) -> None:
    alike = fingerprint(one, "m") == fingerprint(two, model)
    assert alike == (meaning(one) == meaning(two) and model == "m")


OLD: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "2 + 2?"}, "f5024467119dad835bddfa179096f67635c906d1be19e2b3114dcbce69cbe3a7"),
    (
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "h\u00e9"}]},
            ],
            "tenant": "acme",
            "params": {
                "temperature": 0.5, "max_tokens": 9, "stop": "x", "tools": [{
                    "type": "function",
                    "function": {"name": "f", "parameters": {
                        "type": "object", "properties": {"b": {}, "a": {}},
                    }},
                }],
                "user": "u", "store": True, "seed": None,
            },
        },
        "6828ef210bdae2dfa7aeb001eaaca42c73fe43e819403771bf3909a9f55d4ee6",
    ),
    (
        {"input": ["a", "b"], "params": {"dimensions": 8, "encoding_format": "base64"}},
        "0defeaa191fd2a1f0a210ec4129694c582546d89aa6556f73b4a1ce204ec733c",
    ),
    ({"input": ["a"]}, "952e43037350839b132b0827a681a77e4bac78100a65e9c46d7b03ac9c256106"),
]  # fmt: skip
"""Requests with their keys in the release before, for the model gpt-4o."""


@pytest.mark.parametrize(("fields", "key"), OLD)
def test_keys_of_the_release_before_still_find_their_answers(
    fields: dict[str, Any], key: str
) -> None:
    assert of("gpt-4o", **fields) == key


def test_tokens_and_large_numbers_have_keys() -> None:
    assert of(input=[1, 2]) == of(input=[[1, 2]]) != of(input=[[1], [2]])
    assert of(input=[5]) != of(input="5")
    large = 12345678901234567890123
    keys = {of(params={"newest": value}) for value in (large, large + 1, float(large))}
    assert len(keys) == 3
