"""Anthropic's dialect: a request in OpenAI's form goes out as Messages."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.job.request import Request
from headgate.shared.routing.dialects import HINTS, ONLY_OPENAI
from headgate.workers.providers.anthropic_request import (
    DROPPED,
    JSON_ONLY,
    NULLABLE,
    messages_body,
)


def sent(messages: list[dict[str, Any]] | None = None, **params: Any) -> dict[str, Any]:
    messages = messages or [{"role": "user", "content": "Hi"}]
    request = Request(messages=messages, params=params)
    return messages_body(request, "claude-haiku-4-5", 8192)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_a_whole_conversation_with_tools_is_translated() -> None:
    call = {"id": "call.1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    body = sent(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            user("What is it?"),
            {"role": "assistant", "content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call.1", "content": "rain"},
            user([{"type": "text", "text": "And now?"}]),
        ],
        tools=[
            {
                "type": "function",
                "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
            },
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        stop="END",
        max_tokens=100,
        temperature=1.7,
        top_p=0.5,
        top_k=4,
        user="u1",
        thinking={"type": "adaptive"},
    )
    assert body == {
        "model": "claude-haiku-4-5",
        "max_tokens": 100,
        "top_p": 0.5,
        "stop_sequences": ["END"],
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            user("What is it?"),
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "call_1", "name": "f", "input": {"x": 1}},
                ],
            },
            user(
                [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "rain"},
                    {"type": "text", "text": "And now?"},
                ]
            ),
        ],
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        "top_k": 4,
        "metadata": {"user_id": "u1"},
        "thinking": {"type": "adaptive"},
    }


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([user("a"), user("b")], ["user"]),
        ([{"role": "assistant", "content": "a"}, user("b")], ["user", "assistant", "user"]),
        ([{"role": "system", "content": "a"}], ["user"]),
        ([user("a"), {"role": "assistant", "content": ""}, user("b")], ["user"]),
        ([user("")], ["user"]),
    ],
)
def test_turns_alternate_begin_with_the_user_and_are_never_empty(
    messages: list[dict[str, Any]], turns: list[str]
) -> None:
    body = sent(messages)
    assert [turn["role"] for turn in body["messages"]] == turns
    assert all(turn["content"] for turn in body["messages"])
    assert "system" not in body


def test_a_last_turn_of_the_assistant_ends_without_blanks() -> None:
    assert sent([user("a"), {"role": "assistant", "content": "b \n"}])["messages"][-1] == {
        "role": "assistant",
        "content": "b",
    }


def test_a_system_block_keeps_its_cache_mark_and_its_place() -> None:
    marked = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    body = sent(
        [{"role": "system", "content": "a"}, {"role": "system", "content": [marked]}, user("b")],
        system="first",
    )
    assert body["system"] == [
        {"type": "text", "text": "first"},
        {"type": "text", "text": "a"},
        marked,
    ]


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBOR"}},
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR"},
            },
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://h/x.png", "detail": "low"}},
            {"type": "image", "source": {"type": "url", "url": "https://h/x.png"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"},
            },
        ),
        ({"type": "image", "source": {}}, {"type": "image", "source": {}}),
    ],
)
def test_images_and_files_become_blocks(part: dict[str, Any], block: dict[str, Any]) -> None:
    text = {"type": "text", "text": "see"}
    assert sent([user([text, part])])["messages"][0]["content"] == [text, block]


@pytest.mark.parametrize(
    ("choice", "becomes"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "any"}, {"type": "any"}),
    ],
)
def test_a_tool_choice_is_translated(choice: object, becomes: dict[str, Any]) -> None:
    assert sent(tool_choice=choice)["tool_choice"] == becomes


def test_no_parallel_calls_without_a_choice_is_a_choice_of_auto() -> None:
    body = sent(tools=[{"name": "f", "input_schema": {}}], parallel_tool_calls=False)
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}


def test_arguments_that_are_no_json_stay_a_text() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "{oops"}}
    body = sent([user("a"), {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert body["messages"][1]["content"][0]["input"] == {"arguments": "{oops"}


def test_a_schema_goes_to_the_output_config_beside_what_is_there() -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    body = sent(response_format=format_, output_config={"effort": "low"})
    assert body["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": {"type": "object"}},
    }
    assert "response_format" not in body


def test_json_without_a_schema_is_an_instruction() -> None:
    body = sent([{"role": "system", "content": "a"}, user("b")],
                response_format={"type": "json_object"})  # fmt: skip
    assert body["system"] == f"a\n\n{JSON_ONLY}"


@pytest.mark.parametrize(
    ("params", "most"),
    [
        ({}, 8192),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 9_999_999}, 8192),
    ],
)
def test_the_output_is_limited_by_the_caller_and_by_the_model(
    params: dict[str, Any], most: int
) -> None:
    body = sent(**params)
    assert body["max_tokens"] == most
    assert "max_completion_tokens" not in body


def test_params_that_ask_for_nothing_are_left_out_and_unknown_ones_pass() -> None:
    nothing: dict[str, Any] = dict.fromkeys(NULLABLE)
    body = sent(**nothing, new_param=[1], thinking=None)
    assert set(body) == {"model", "max_tokens", "messages", "new_param", "thinking"}
    neutral = {name: values[0] for name, values in ONLY_OPENAI.items() if values}
    assert set(sent(**neutral)) == {"model", "max_tokens", "messages"}
    hints: dict[str, Any] = dict.fromkeys(HINTS, "x")
    assert set(sent(**hints)) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"temperature": 0.2, "top_p": 1}, {"temperature": 0.2}),
        ({"temperature": 1, "top_p": 0.3}, {"top_p": 0.3}),
        ({"temperature": 1.4}, {"temperature": 1}),
        ({"top_p": 1}, {"top_p": 1}),
    ],
)
def test_temperature_and_top_p_never_go_together(
    asked: dict[str, Any], wanted: dict[str, Any]
) -> None:
    body = sent(**asked)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == wanted


TEXTS = st.one_of(st.none(), st.text())
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "image_url", "url", "function", "name", "arguments", "id"]
            ),
            inner | st.sampled_from(["text", "image_url", "function", "file", "data:a/b;base64,x"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)
PARTS = st.lists(
    st.dictionaries(st.sampled_from(["type", "text", "image_url", "file", "refusal"]), ANYTHING)
    | st.builds(lambda text: {"type": "text", "text": text}, st.text()),
    max_size=3,
)
MESSAGES = st.one_of(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "tool", "assistant"]),
            "content": st.text() | PARTS,
        },
        optional={"tool_call_id": ANYTHING, "name": st.text()},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": TEXTS | PARTS},
        optional={"tool_calls": ANYTHING},
    ),
)
PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_tokens": st.integers(1, 10**7),
        "stop": TEXTS | st.lists(st.text()),
        "tools": ANYTHING,
        "tool_choice": ANYTHING,
        "response_format": ANYTHING,
        "output_config": ANYTHING,
        "parallel_tool_calls": ANYTHING,
        "metadata": ANYTHING,
        "user": ANYTHING,
        "system": ANYTHING,
        "service_tier": ANYTHING,
    },
)


@given(st.lists(MESSAGES, min_size=1, max_size=6), PARAMS)
def test_every_valid_request_becomes_a_body_with_alternating_turns(
    messages: list[dict[str, Any]], params: dict[str, Any]
) -> None:
    request = Request(messages=messages, params=params)
    before = orjson.dumps(request.model_dump())
    body = messages_body(request, "m", 4096)
    assert orjson.dumps(body)
    roles = [turn["role"] for turn in body["messages"]]
    assert roles == [("user", "assistant")[at % 2] for at in range(len(roles))]
    assert all(turn["content"] for turn in body["messages"])
    assert 1 <= body["max_tokens"] <= 4096
    assert body.get("temperature", 0) <= 1
    assert not DROPPED & body.keys()
    assert orjson.dumps(request.model_dump()) == before, "the request itself was changed"
