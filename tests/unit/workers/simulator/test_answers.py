"""Answers, their length, their form and their price: pure functions of the request."""

import math
from decimal import Decimal
from statistics import median
from typing import Any, get_args, get_type_hints

import orjson
import pytest
from anthropic.types import ContentBlockParam
from hypothesis import given
from hypothesis import strategies as st

from headgate.workers.simulator.answers import compose, pieces, vector
from headgate.workers.simulator.anthropic.requests import BLOCKS, read_messages
from headgate.workers.simulator.billing import SimulatedPrice, SimulatedUsage, bill_usd, parse_price
from headgate.workers.simulator.openai.requests import read_chat, read_embeddings
from headgate.workers.simulator.prompt_cache import PromptCache
from headgate.workers.simulator.request import Invalid

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["c", "f"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    },
    "required": ["city", "days", "unit", "tags"],
}


def chat(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], **more}


def test_the_same_request_gets_the_same_answer_streamed_or_not() -> None:
    once = compose(read_chat(chat("Why?")), 0, 4.0)
    assert compose(read_chat(chat("Why?", stream=True, user="u")), 0, 4.0) == once
    assert compose(read_chat(chat("Why not?")), 0, 4.0).text != once.text
    assert compose(read_chat(chat("Why?", temperature=1)), 0, 4.0).text != once.text


def test_lengths_spread_around_a_median() -> None:
    counts = [compose(read_chat(chat(f"{n}")), 0, 4.0).output_tokens for n in range(500)]
    assert 40 <= median(counts) <= 75
    assert max(counts) > 2.5 * min(counts)


@given(cap=st.integers(1, 200), prompt=st.text(min_size=1, max_size=80))
def test_no_answer_is_longer_than_max_tokens(cap: int, prompt: str) -> None:
    for model in ("gpt-4o-mini", "gpt-5-mini", "o3"):
        ask = read_chat(chat(prompt, max_completion_tokens=cap) | {"model": model})
        answer = compose(ask, 0, 4.0)
        assert answer.output_tokens <= cap
        assert len(answer.text) <= cap * 4
        assert answer.end in ("stop", "length")


def test_reasoning_models_report_reasoning_tokens() -> None:
    assert compose(read_chat(chat("x") | {"model": "o4-mini"}), 0, 4.0).reasoning_tokens > 0
    assert compose(read_chat(chat("x")), 0, 4.0).reasoning_tokens == 0


def test_an_answer_ends_before_a_stop_word() -> None:
    answer = compose(read_chat(chat("Why?", stop=[":"])), 0, 4.0)
    assert ":" not in answer.text
    assert answer.stop_word == ":"


def test_json_is_answered_where_json_is_asked_for() -> None:
    plain = compose(read_chat(chat("x", response_format={"type": "json_object"})), 0, 4.0)
    assert isinstance(orjson.loads(plain.text), dict)
    form = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}
    shaped = orjson.loads(compose(read_chat(chat("x", response_format=form)), 0, 4.0).text)
    assert set(shaped) == set(WEATHER["required"])
    assert 1 <= shaped["days"] <= 7
    assert len(shaped["tags"]) == 2


def test_a_schema_that_refers_to_itself_ends() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": node}}
    orjson.loads(compose(read_chat(chat("x", response_format=form)), 0, 4.0).text)


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]


@pytest.mark.parametrize(
    ("prompt", "choice", "called"),
    [
        ("hello", "required", True),
        ("hello", {"type": "function", "function": {"name": "get_weather"}}, True),
        ("please get_weather", "auto", True),
        ("hello", "auto", False),
        ("please get_weather", "none", False),
    ],
)
def test_a_tool_is_called_when_it_must_be_or_is_mentioned(
    prompt: str, choice: object, called: bool
) -> None:
    answer = compose(read_chat(chat(prompt, tools=TOOLS, tool_choice=choice)), 0, 4.0)
    assert (answer.tool_call is not None) is called
    if answer.tool_call is not None:
        assert orjson.loads(answer.tool_call.arguments)["unit"] in ("c", "f")


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": "x"},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"role": "user", "content": 5}]},
        {"max_tokens": 0},
        {"max_tokens": "5"},
        {"max_tokens": True},
        {"n": 1000},
        {"temperature": 3},
        {"stream": "yes"},
        {"model": ""},
        {"response_format": {"type": "xml"}},
        {"stop": 5},
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        read_chat(chat("x") | wrong)


def test_anthropic_needs_max_tokens() -> None:
    with pytest.raises(Invalid, match="Field required"):
        read_messages(chat("x"))


BUDGET = {"type": "enabled", "budget_tokens": 1024}
ADAPTIVE = {"type": "adaptive"}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"thinking": {"type": "enabled", "budget_tokens": 1023}},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"thinking": {"type": "new"}},
        {"thinking": ADAPTIVE},
        {"thinking": BUDGET, "model": "claude-opus-4-7"},
        {"thinking": BUDGET, "temperature": 0.5},
        {"thinking": BUDGET, "tool_choice": {"type": "any"}},
        {"thinking": BUDGET, "messages": [*chat("x")["messages"], CALLED, RESULT]},
        {"output_config": {"effort": "minimal"}},
    ],
)
def test_thinking_that_anthropic_refuses_is_refused(wrong: dict[str, Any]) -> None:
    asked = chat("x") | {"model": "claude-haiku-4-5", "max_tokens": 2000}
    assert read_messages(asked | {"thinking": BUDGET}).reasons
    assert read_messages(asked | {"thinking": ADAPTIVE, "model": "claude-opus-5"}).reasons
    assert not read_messages(asked | {"thinking": {"type": "disabled"}}).reasons
    with pytest.raises(Invalid):
        read_messages(asked | wrong)


def test_every_block_that_the_sdk_can_send_is_accepted() -> None:
    kinds = set()
    for one in get_args(ContentBlockParam):
        kinds |= set(get_args(get_type_hints(one)["type"]))
    assert kinds <= BLOCKS


@given(st.text(max_size=300))
def test_the_pieces_of_a_stream_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_vectors_have_length_one_and_are_close_for_texts_that_share_words() -> None:
    def near(a: str, b: str) -> float:
        return sum(x * y for x, y in zip(vector(a, 256), vector(b, 256), strict=True))

    first = "how do I reset my password"
    assert math.isclose(near(first, first), 1.0, abs_tol=1e-5)
    assert near(first, "how do I reset my pin") > near(first, "cheap flights to Lisbon") + 0.3


@pytest.mark.parametrize("given_input", ["x", ["x", "y"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings_take_texts_and_token_numbers(given_input: object) -> None:
    assert read_embeddings({"model": "text-embedding-3-small", "input": given_input}).inputs


@pytest.mark.parametrize("given_input", ["", [], [""], 5, None, ["x", 1]])
def test_embeddings_refuse_empty_inputs(given_input: object) -> None:
    with pytest.raises(Invalid):
        read_embeddings({"model": "text-embedding-3-small", "input": given_input})


def test_a_long_prefix_is_cached_from_its_second_sight_in_steps_of_128_tokens() -> None:
    prefixes = PromptCache()
    long = "".join(f"{n:07d} " for n in range(1000))
    cached, keys = prefixes.automatic("m", long, 4.0)
    assert cached == 0
    prefixes.remember(keys)
    assert prefixes.automatic("m", long, 4.0)[0] == 1920
    assert prefixes.automatic("m", long[:5000] + "x" * 5000, 4.0)[0] == 1152
    assert prefixes.automatic("other", long, 4.0)[0] == 0


def test_bills_are_exact() -> None:
    usage = SimulatedUsage(input_tokens=1200, output_tokens=34, cached_tokens=1024)
    assert bill_usd("openai", "gpt-4o-mini", usage, {}) == Decimal("0.0001236")
    written = SimulatedUsage(
        input_tokens=3000, output_tokens=10, cached_tokens=1000, write_5m_tokens=1500
    )
    # USD 1 and 5 a million: 500 plain, 1,000 read at 0.1, 1,500 written at 1.25, 10 out.
    assert bill_usd("anthropic", "claude-haiku-4-5", written, {}) == Decimal("0.002525")
    assert bill_usd("openai", "nobody-knows", usage, {}) is None


def test_given_prices_go_before_known_ones() -> None:
    name, price = parse_price("my-model:input=1,output=2,cached_input=0.5")
    assert bill_usd("openai", name, SimulatedUsage(1_000_000, 1_000_000), {name: price}) == Decimal(
        3
    )
    for wrong in ("m", "m:inpt=1", "m:input=x", ":input=1"):
        with pytest.raises(ValueError, match="price"):
            parse_price(wrong)
    assert isinstance(price, SimulatedPrice)
