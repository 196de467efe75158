"""OpenAI's dialect: a request in Anthropic's form goes out as a chat completion."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.job.request import Request
from headgate.workers.providers.openai_messages import NO_TEXT, SEE_NEXT, chat_messages
from headgate.workers.providers.openai_request import is_strict, translated_body

HI = [{"role": "user", "content": "Hi"}]
STRICT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def sent(model: str = "gpt-4o-mini", *, vendor: bool = True, **params: Any) -> dict[str, Any]:
    request = Request(messages=HI, params=params, dialect="anthropic")
    body = translated_body(request, model, 4096, vendor=vendor)
    return {name: value for name, value in body.items() if name not in ("model", "messages")}


def turns(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return chat_messages(messages, None)


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def result(call: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content, **more}


@pytest.mark.parametrize(
    ("model", "vendor", "name"),
    [
        ("gpt-4o-mini", True, "max_completion_tokens"),
        ("llama-4", False, "max_tokens"),
        ("openai/gpt-5.4", False, "max_completion_tokens"),
    ],
)
def test_the_limit_has_the_name_that_the_model_knows(model: str, vendor: bool, name: str) -> None:
    assert sent(model, vendor=vendor, max_tokens=9) == {name: 9}
    assert sent(model, vendor=vendor, max_tokens=9000) == {name: 4096}


def test_the_user_is_named_at_openai_itself_only_and_in_at_most_64_characters() -> None:
    assert sent(metadata={"user_id": "u"}) == {"safety_identifier": "u"}
    assert sent(metadata={"user_id": "u"}, vendor=False) == {}
    long = sent(metadata={"user_id": "u" * 65})["safety_identifier"]
    assert len(long) == 64
    assert long == sent(metadata={"user_id": "u" * 65})["safety_identifier"]


@pytest.mark.parametrize(
    ("params", "body"),
    [
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
        ({"stop_sequences": []}, {}),
        ({"metadata": {}}, {}),
        ({"output_config": {"effort": None, "format": None}}, {}),
        ({"temperature": None, "top_p": None}, {}),
    ],
)
def test_what_asks_for_nothing_is_left_out(params: dict[str, Any], body: dict[str, Any]) -> None:
    assert sent(**params) == body


def test_strict_is_kept_only_if_the_schema_keeps_openais_rules() -> None:
    loose = {"type": "object", "properties": {"a": {"type": "string"}}}
    for schema, strict in ((STRICT, True), (loose, None)):
        tool = {"name": "f", "input_schema": schema, "strict": True}
        [made] = sent(tools=[tool])["tools"]
        assert made["function"].get("strict") is strict
    form = {"type": "json_schema", "schema": loose}
    for params in ({"output_config": {"format": form}}, {"output_format": form}):
        assert sent(**params)["response_format"]["json_schema"] == {
            "name": "answer", "schema": loose, "strict": False,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (STRICT, True),
        ({**STRICT, "required": []}, False),
        ({**STRICT, "additionalProperties": True}, False),
        ({**STRICT, "properties": {"a": {"type": "object"}}}, False),
        ({**STRICT, "properties": {"a": {"type": "array", "items": STRICT}}}, True),
        ({"anyOf": [STRICT, {"type": "null"}], "$defs": {"x": STRICT}}, True),
        # A property may have the name of a keyword.
        ({**STRICT, "properties": {"type": {"type": "string"}}, "required": ["type"]}, True),
        ({"type": "string"}, True),
        (None, True),
    ],
)
def test_a_schema_is_strict_if_each_object_requires_all_and_allows_no_more(
    schema: Any, strict: bool
) -> None:
    assert is_strict(schema) is strict


def test_several_results_of_a_turn_come_before_what_the_user_says() -> None:
    calls: list[dict[str, Any]] = [
        {"type": "tool_use", "id": i, "name": "f", "input": {}} for i in ("a", "b")
    ]
    text = {"type": "text", "text": "And now?"}
    made = turns(
        *HI,
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, *calls]},
        user(result("a", "1"), result("b", [{"type": "text", "text": "2"}]), text),
    )
    assert [message["role"] for message in made] == ["user", "assistant", "tool", "tool", "user"]
    assert made[1]["content"] == "I look."
    assert [call["id"] for call in made[1]["tool_calls"]] == ["a", "b"]
    assert [message["content"] for message in made[2:]] == ["1", "2", "And now?"]


def test_neighbours_of_one_role_are_one_turn_so_that_results_stay_behind_their_calls() -> None:
    calls: list[dict[str, Any]] = [
        {"type": "tool_use", "id": i, "name": "f", "input": {}} for i in ("a", "b")
    ]
    made = turns(
        {"role": "assistant", "content": "I look."},
        *({"role": "assistant", "content": [call]} for call in calls),
        user(result("a", "1"), {"type": "text", "text": "And?"}),
        user(result("b", "2")),
        {"role": "user", "content": "Go on."},
    )
    assert [message["role"] for message in made] == ["assistant", "tool", "tool", "user"]
    assert len(made[0]["tool_calls"]) == 2
    assert [part["text"] for part in made[3]["content"]] == ["And?", "Go on."]


@pytest.mark.parametrize(
    ("block", "content"),
    [
        (result("a", ""), NO_TEXT),
        (result("a", []), NO_TEXT),
        ({"type": "tool_result", "tool_use_id": "a"}, NO_TEXT),
        (result("a", "", is_error=True), f"Error: {NO_TEXT}"),
        (result("a", "Error 5", is_error=True), "Error 5"),
        (result("a", "fine", is_error=False), "fine"),
    ],
)
def test_a_result_always_has_a_text(block: dict[str, Any], content: str) -> None:
    assert turns(user(block)) == [{"role": "tool", "tool_call_id": "a", "content": content}]


def test_images_of_several_results_follow_behind_all_of_them() -> None:
    source = {"type": "url", "url": "https://x.test/y.png"}
    image = {"type": "image", "source": source}
    made = turns(user(result("a", [image]), result("b", [image])))
    assert [message["content"] for message in made[:2]] == [SEE_NEXT, SEE_NEXT]
    assert made[2]["role"] == "user"
    labels = [part["text"] for part in made[2]["content"] if part["type"] == "text"]
    assert labels == [f"From the result of the tool call {call}:" for call in "ab"]
    assert sum(part["type"] == "image_url" for part in made[2]["content"]) == 2


def test_a_document_of_blocks_keeps_its_title_and_its_images() -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://x.test/y.png"}}
    source = {"type": "content", "content": [{"type": "text", "text": "a"}, image]}
    [message] = turns(user({"type": "document", "title": "t", "source": source}))
    assert [part.get("text", "image") for part in message["content"]] == ["t", "a", "image"]
    plain = {"type": "content", "content": "b"}
    assert turns(user({"type": "document", "source": plain}))[0]["content"] == "b"


def test_a_turn_that_only_thinks_is_left_out() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    assert turns(*HI, {"role": "assistant", "content": [thought]}) == HI


def test_long_ids_of_calls_are_shortened_alike_in_call_and_result() -> None:
    long = "toolu_" + "x" * 60
    use = {"type": "tool_use", "id": long, "name": "f", "input": {}}
    asked, given_ = turns({"role": "assistant", "content": [use]}, user(result(long, "1")))
    assert asked["tool_calls"][0]["id"] == given_["tool_call_id"]
    assert len(given_["tool_call_id"]) <= 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
BLOCK = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image", "document", "tool_use", "tool_result"])},
    optional={"text": st.text(), "content": JSON, "id": JSON, "input": JSON, "name": JSON},
)
CONTENT = st.text() | st.lists(BLOCK, max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), CONTENT), min_size=1))
def test_whatever_the_messages_hold_the_translation_has_their_roles_and_contents(
    given_: list[tuple[str, Any]],
) -> None:
    messages = [{"role": role, "content": content} for role, content in given_]
    blocks = [b for m in messages if isinstance(m["content"], list) for b in m["content"]]
    for block in blocks:  # what the check before the call has made sure of
        block.pop("source", None)
    for message in chat_messages(messages, None):
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert message["content"] is not None or message["tool_calls"]
