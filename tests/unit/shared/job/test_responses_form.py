"""Requests in the form of Responses: what is taken, what is refused, and what follows from it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from headgate.producer.submit.checks import refuse_misspelt_params
from headgate.producer.submit.defaults import with_defaults
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.cache.ttl import CachePolicy
from headgate.shared.catalog import catalog
from headgate.shared.cost.tokens import input_tokens
from headgate.shared.cost.upper_bound import input_bound, upper_bound_pico_usd
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id
from headgate.shared.job.request import Request, request_from
from headgate.shared.routing.capabilities import lacks, needs_of

CATALOG = catalog.load()
MINI = CATALOG.model("gpt-4o-mini")
CLAUDE = CATALOG.model("claude-haiku-4-5")
ITEMS = [{"role": "user", "content": "Hi"}]
PIN = {"provider": "openai", "key": "0123456789abcdef"}


def of(given: Any = "x", **params: Any) -> Request:
    return request_from({"dialect": "responses", "input": given, "params": params})


def test_instructions_and_items_say_the_form() -> None:
    request = request_from({"input": "x", "instructions": "Kind.", "params": {"top_p": 1}})
    assert (request.dialect, request.embeds, request.inputs) == ("responses", False, [])
    assert request.params == {"instructions": "Kind.", "top_p": 1}
    assert request_from({"input": ITEMS}).dialect == "responses"
    assert request_from({"prompt": "x", "instructions": "Kind."}).prompt == "x"
    assert request_from({"input": "x", "instructions": None}).embeds


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"input": "x", "instructions": "a", "params": {"instructions": "b"}}, "instructions"),
        ({"prompt": "x", "instructions": "a", "dialect": "openai"}, "instructions"),
        ({"input": 5, "instructions": "a"}, "input"),
        ({"input": "x", "instructions": 5}, "params.instructions"),
        ({"input": [], "dialect": "responses"}, "input"),
        ({"input": "", "dialect": "responses"}, "input"),
        ({"dialect": "responses"}, "prompt"),
        ({"input": ["x"], "dialect": "responses"}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": []}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "function_call_output", "call_id": "c",
                     "output": [{"type": "output_text", "text": 5}]}]}, "input[0].output[0].text"),
        ({"input": ITEMS, "params": {"tools": [{"type": "function", "name": []}]}},
         "params.tools[0].name"),
        ({"input": ITEMS, "params": {"tools": [
            {"type": "function", "name": "f", "allowed_callers": 5}]}},
         "params.tools[0].allowed_callers"),
        ({"input": ITEMS, "params": {"tool_choice": {"tools": [{"type": "function"}]}}},
         "params.tool_choice.tools[0].name"),
        ({"input": ITEMS, "dialect": "openai"}, "input"),
        ({"messages": ITEMS, "dialect": "responses"}, "messages"),
        ({"input": [{"role": "tool", "content": "x"}], "dialect": "responses"}, "input[0].role"),
        ({"input": [{"role": "user"}], "dialect": "responses"}, "input[0].content"),
        ({"input": [{"type": ""}], "dialect": "responses"}, "input[0].type"),
        ({"input": "x", "dialect": "responses", "params": {"background": True}},
         "params.background"),
        ({"input": "x", "dialect": "responses", "params": {"stream": True}}, "params.stream"),
        ({"input": "x", "dialect": "responses", "params": {"max_output_tokens": 0}},
         "params.max_output_tokens"),
        ({"input": "x", "dialect": "responses", "params":
          {"previous_response_id": "a", "conversation": "b"}}, "params.previous_response_id"),
        ({"input": "x", "dialect": "responses", "params": {"conversation": {}}},
         "params.conversation"),
        ({"prompt": "x", "pinned": {"provider": "openai", "key": "sk-secret"}}, "pinned.key"),
        ({"input": "x", "previous_response_id": "a"}, "previous_response_id"),
    ],
)  # fmt: skip
def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        request_from(fields)
    assert refused.value.field == field


def test_params_of_chat_completions_are_refused_with_what_to_give_instead() -> None:
    with pytest.raises(InvalidRequest, match=r"params\.max_output_tokens"):
        refuse_misspelt_params(of(max_tokens=5))


def test_old_readers_leave_the_form_and_pins_to_newer_ones() -> None:
    assert of().version == 3
    pinned = request_from({"prompt": "x", "pinned": PIN})
    assert pinned.version == 3
    sent = Envelope(
        id=new_id(), request=of(ITEMS, tools=[]), model="m", model_class="fast", submitted_at_ms=1
    )
    assert b'"v":3' in sent.encode()


def test_tokens_and_bounds_are_those_of_the_words() -> None:
    plain, items = of("Hi there"), of([{"role": "user", "content": "Hi there"}])
    assert input_tokens(plain) == input_tokens(items)
    assert input_tokens(of("Hi there", instructions="Be kind.")) > input_tokens(plain)
    assert of(max_output_tokens=30).asked_tokens == 30
    assert input_bound(plain, MINI) < 200
    assert input_bound(of("x", previous_response_id="resp_1"), MINI) == MINI.context_tokens
    assert upper_bound_pico_usd(of("x", tools=[{"type": "web_search"}]), MINI, CATALOG) is None
    small = upper_bound_pico_usd(of("x", max_output_tokens=16), MINI, CATALOG)
    assert small is not None
    assert small * Decimal("1e-12") < Decimal("0.0001")


def test_answers_that_depend_on_a_record_are_not_kept() -> None:
    policy = CachePolicy()
    asked_with: dict[str, dict[str, Any]] = {
        "plain": {}, "store": {"store": True}, "unstored": {"store": False},
        "previous": {"previous_response_id": "a"}, "conversation": {"conversation": "c"},
        "tools": {"tools": [{"type": "file_search"}]},
        "function": {"tools": [{"type": "function", "name": "f"}]},
    }  # fmt: skip
    reasons = {n: policy.lifetime(of("x", **params)).reason for n, params in asked_with.items()}
    assert reasons == {
        "plain": "general", "store": "stored", "unstored": "unstored", "previous": "stateful",
        "conversation": "stateful", "tools": "stateful", "function": "general",
    }  # fmt: skip
    asked: dict[str, Any] = {"dialect": "responses", "input": "x", "cache": "exact"}
    followed = request_from({**asked, "params": {"previous_response_id": "a"}})
    assert policy.lifetime(followed).ttl_s > 0  # what an id stands for never changes
    spoken = request_from({**asked, "params": {"conversation": "c"}})
    assert policy.lifetime(spoken).ttl_s == 0


def test_only_the_same_words_in_the_same_form_have_one_fingerprint() -> None:
    def seen(given: Any = "x", **params: Any) -> str:
        return fingerprint(of(given, **params), "m")

    assert seen("Hi") == seen(ITEMS) == seen("Hi", top_p=None)
    assert seen("Hi") != fingerprint(Request(prompt="Hi"), "m")
    assert seen() != seen(max_output_tokens=20) != seen(max_output_tokens=21)
    assert seen() != seen(metadata={"a": "b"})
    assert seen(prompt_cache_key="a") == seen(prompt_cache_key="b")


def test_a_model_without_responses_lacks_what_it_cannot_carry() -> None:
    searching = needs_of(of(tools=[{"type": "web_search"}]))
    assert lacks(MINI, searching) is None
    assert lacks(CLAUDE, searching) == "a counterpart of params.tools[0]"
    assert lacks(CLAUDE, needs_of(of(text={"verbosity": "low"}))) == "a counterpart of params.text"
    assert needs_of(of(ITEMS, text={"format": {"type": "json_object"}})).json
    pinned = needs_of(request_from({"prompt": "x", "pinned": PIN}))
    assert (lacks(MINI, pinned), lacks(CLAUDE, pinned)) == (None, "what openai has on record")


def test_defaults_take_the_names_of_the_form() -> None:
    filled = with_defaults({"input": "x", "instructions": "a"}, {"max_tokens": 5, "system": "b"})
    assert filled["params"] == {"max_output_tokens": 5, "instructions": "a"}
    filled = with_defaults({"input": ITEMS}, {"system": "b"})
    assert filled["params"] == {"instructions": "b"}
    assert "params" not in with_defaults({"input": "x"}, {"max_tokens": 5})  # an embedding


@pytest.mark.parametrize(
    ("dialect", "remedy"),
    [
        ("openai", "a list of tokens"),
        ("responses", "a text or a list of items$"),
        ("moderations", "a list of texts or a list of parts$"),
    ],
)
def test_an_input_of_another_type_is_refused_with_what_its_form_takes(
    dialect: str, remedy: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"^input: 5: give .*{remedy}"):
        request_from({"input": 5, "dialect": dialect})
