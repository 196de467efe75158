"""The estimate of tokens is a little too high, whatever the request holds, and never fails."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.catalog.catalog import load
from headgate.shared.cost.tokens import (
    ANSWER_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    exceeds_window,
    input_tokens,
    load_vocabularies,
    output_ceiling,
    vocabulary,
)
from headgate.shared.job.request import Request

CATALOG = load()

#: Texts and their true count in the o200k vocabulary (counted with bpe-openai 0.1.4).
COUNTED = [
    (
        "Write a Python class for a chess club that keeps up to 31 bookings, refuses duplicates "
        "and raises a clear error.",
        24,
    ),
    ("whats the phone number of a municipal library?", 10),
    ('Hast du schon mal von einem Praktikum bei "our data platform" gehört?', 17),
    ("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。", 35),  # noqa: RUF001
    ("Все люди рождаются свободными и равными в своем достоинстве и правах.", 17),  # noqa: RUF001
    ("0192f3a4-5b6c-7d8e-9f01-23456789abcd", 25),
    ("31415926535897932384626433832795028841971", 14),
]


@pytest.mark.parametrize(("prompt", "true"), COUNTED)
def test_a_text_is_estimated_near_its_true_count(prompt: str, true: int) -> None:
    framed = true + 7  # the marks of the message and of the answer
    # Identifiers are the worst case: their hyphens and odd digits are tokens of their own.
    assert 0.8 * framed <= input_tokens(Request(prompt=prompt)) <= 2.5 * framed


def test_a_prompt_counts_as_the_message_that_it_becomes() -> None:
    request = Request(prompt="What is a bucket?")
    assert input_tokens(request) == input_tokens(Request(messages=request.chat()))


SAID = {"type": "text", "text": "word " * 100}
TEXT_DOCUMENT = {"type": "document", "source": {"type": "text", "data": SAID["text"]}}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x.test/y.png"}}


@pytest.mark.parametrize(
    ("block", "least", "most"),
    [
        ({"type": "tool_result", "tool_use_id": "a", "content": SAID["text"]}, 100, 150),
        ({"type": "tool_result", "tool_use_id": "a", "content": [SAID]}, 100, 150),
        ({"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}, IMAGE_TOKENS, 1_700),
        ({"type": "tool_use", "id": "a", "name": "f", "input": {"x": SAID["text"]}}, 100, 200),
        ({"type": "thinking", "thinking": SAID["text"], "signature": "Aa+/" * 500}, 100, 150),
        (TEXT_DOCUMENT, 100, 150),
        ({"type": "document", "source": {"type": "content", "content": [SAID]}}, 100, 150),
        ({"type": "document", "source": {"type": "base64", "data": "AA=="}}, IMAGE_TOKENS, 1_700),
    ],
)
def test_blocks_of_anthropics_form_count_with_what_is_in_them(
    block: dict[str, Any], least: int, most: int
) -> None:
    messages = [{"role": "user", "content": [block]}]
    assert least <= input_tokens(Request(messages=messages, dialect="anthropic")) <= most


def test_system_prompts_tools_and_formats_of_anthropics_form_count() -> None:
    def of(**params: Any) -> int:
        return input_tokens(Request(prompt="a", params=params, dialect="anthropic"))

    bare = of()
    assert of(system=SAID["text"]) >= bare + 100
    assert of(system=[SAID, SAID]) >= bare + 200
    schema = {"type": "object", "description": SAID["text"]}
    assert of(tools=[{"name": "f", "input_schema": schema}]) >= bare + 100
    assert of(output_config={"format": {"type": "json_schema", "schema": schema}}) >= bare + 100


def test_more_messages_cost_more_than_one() -> None:
    one = Request(messages=[{"role": "user", "content": "ab"}])
    two = Request(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    assert input_tokens(two) > input_tokens(one)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "A" * 500_000},
        },
        {"type": "input_audio", "input_audio": {"data": "A" * 500_000, "format": "wav"}},
        {"type": "file", "file": {"file_data": "A" * 500_000}},
        {"type": "document", "source": {"type": "base64", "data": "A" * 500_000}},
    ],
)
def test_an_attachment_has_a_fixed_figure_whatever_its_bytes(part: dict[str, Any]) -> None:
    words = [{"type": "text", "text": "What is this?"}]
    bare = input_tokens(Request(messages=[{"role": "user", "content": words}]))
    with_it = input_tokens(Request(messages=[{"role": "user", "content": [*words, part]}]))
    assert with_it == bare + IMAGE_TOKENS


def test_tools_their_calls_and_their_results_count() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "Adds." * 50}}
    assert input_tokens(Request(prompt="a", params={"tools": [tool]})) > 60
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "x" * 900}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert input_tokens(Request(messages=[asked])) > 200
    result = {"type": "tool_result", "tool_use_id": "1", "content": "word " * 300}
    assert input_tokens(Request(messages=[{"role": "user", "content": [result]}])) > 300


def test_every_text_of_an_embedding_job_counts() -> None:
    one, many = Request(input="some words"), Request(input=["some words"] * 100)
    assert input_tokens(many) > 50 * input_tokens(one)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_has_an_estimate_of_at_least_one(prompt: str) -> None:
    size = len(prompt.encode("utf-8", "surrogatepass"))
    assert 1 <= input_tokens(Request(prompt=prompt)) <= 8 + 0.7 * size + 1
    assert 1 <= input_tokens(Request(prompt=prompt), CATALOG.model("gpt-4o")) <= 8 + size + 1


def test_a_lone_surrogate_does_no_harm() -> None:
    assert input_tokens(Request(messages=[{"role": "user", "content": "a\ud800b"}])) > 1


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({}, 16_384),
        ({"max_tokens": 50}, 50),
        ({"max_completion_tokens": 60}, 60),
        ({"max_tokens": 50, "max_completion_tokens": 60}, 60),
        ({"max_tokens": 9_999_999}, 16_384),
        ({"max_tokens": None}, 16_384),
    ],
)
def test_the_answer_takes_at_most_what_was_asked_or_the_model_can(
    params: dict[str, Any], most: int
) -> None:
    assert (
        output_ceiling(Request(prompt="x", params=params).asked_tokens, CATALOG.model("gpt-4o"))
        == most
    )


def test_an_embedding_has_no_output() -> None:
    assert output_ceiling(5, CATALOG.model("mistral-embed")) == 0


def test_only_what_cannot_fit_exceeds_the_window() -> None:
    model = CATALOG.model("gpt-4o")
    assert not exceeds_window(model.context_tokens, model)
    assert not exceeds_window(int(1.5 * model.context_tokens), model)
    assert exceeds_window(int(1.5 * model.context_tokens) + 1, model)
    assert exceeds_window(model.context_tokens, model, reserved_tokens=model.context_tokens // 2)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-6-sol", "o200k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("claude-haiku-4-5", ""),
        ("mistral-embed", ""),
    ],
)
def test_each_model_of_openai_has_a_vocabulary_and_no_other(model: str, name: str) -> None:
    assert vocabulary(CATALOG.model(model)) == name


@pytest.mark.parametrize(("prompt", "true"), COUNTED)
def test_with_the_vocabulary_installed_openais_models_are_counted_exactly(
    prompt: str, true: int
) -> None:
    pytest.importorskip("bpe_openai", reason="the extra `bpe` is not installed")
    framed = true + MESSAGE_TOKENS + ANSWER_TOKENS
    request = Request(prompt=prompt)
    assert input_tokens(request, CATALOG.model("gpt-4o")) == framed
    assert input_tokens(Request(messages=request.chat()), CATALOG.model("gpt-4o")) == framed


def test_vocabularies_are_loaded_ahead_where_they_are_installed() -> None:
    load_vocabularies(CATALOG.models.values())
    load_vocabularies(())


def test_other_models_and_texts_of_any_length_have_their_estimate_whatever_is_installed() -> None:
    some, long = Request(prompt="What is a bucket?"), Request(prompt="\U0001f9ff" * 60_000)
    assert input_tokens(some, CATALOG.model("claude-haiku-4-5")) == input_tokens(some)
    assert input_tokens(long, CATALOG.model("gpt-4o")) == pytest.approx(input_tokens(long), abs=1)
    surrogate = Request(messages=[{"role": "user", "content": "a\ud800b"}])
    assert input_tokens(surrogate, CATALOG.model("gpt-4o")) > 1
    special = Request(prompt="<|endoftext|>")
    assert input_tokens(special, CATALOG.model("gpt-4o")) > 7
