"""Anthropic's dialect: a message comes back in OpenAI's words."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.shared.job.result import Usage
from headgate.workers.errors import InvalidOutput
from headgate.workers.provider import Answer
from headgate.workers.providers.anthropic import read_message, read_usage, without_fence
from headgate.workers.providers.http import Response


def golden(**changes: Any) -> dict[str, Any]:
    return {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "Hel"},
            {"type": "text", "text": "lo!"},
        ],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 1000,
            "output_tokens": 6,
            "output_tokens_details": {"thinking_tokens": 2},
            "service_tier": "standard",
        },
    } | changes


def read(body: dict[str, Any], *, json_only: bool = False) -> Answer:
    headers = {"request-id": "req_9", "anthropic-ratelimit-requests-remaining": "9"}
    response = Response(200, headers, b"")
    return read_message(body, response, json_only=json_only)


def test_the_vendors_own_example_is_read() -> None:
    answer = read(golden())
    assert answer.reply.content == "Hello!"
    assert answer.reply.finish_reason == "stop"
    assert answer.reply.provider_model == "claude-haiku-4-5-20251001"
    assert answer.reply.request_id == "req_9"
    assert answer.reply.usage == Usage(1042, 1000, 30, 6, 2)
    assert answer.headers == {"request-id": "req_9", "anthropic-ratelimit-requests-remaining": "9"}


def test_tool_use_comes_back_as_openais_tool_calls() -> None:
    used = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"x": "é"}}
    reply = read(golden(content=[used], stop_reason="tool_use")).reply
    assert (reply.content, reply.finish_reason) == (None, "tool_calls")
    assert reply.tool_calls == [
        {
            "id": "toolu_1",
            "type": "function",
            "function": {"name": "f", "arguments": '{"x":"é"}'},
        }
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
        (None, "stop"),
    ],
)
def test_stop_reasons_are_translated_to_openais(reason: str | None, finish: str) -> None:
    assert read(golden(stop_reason=reason)).reply.finish_reason == finish


@pytest.mark.parametrize(
    "body",
    [
        {},
        golden(content="text"),
        golden(content=["text"]),
        golden(content=[{"type": "text", "text": None}]),
        golden(content=[{"type": "tool_use", "input": {}}]),
    ],
)
def test_what_is_no_answer_is_an_invalid_output_of_unknown_cost(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidOutput) as caught:
        read(body)
    assert caught.value.billed is None


def test_a_fence_is_taken_off_only_where_json_was_asked_for() -> None:
    body = golden(content=[{"type": "text", "text": '```json\n{"a": 1}\n```'}])
    assert read(body).reply.content == '```json\n{"a": 1}\n```'
    assert read(body, json_only=True).reply.content == '{"a": 1}'
    assert without_fence("a ``` b") == "a ``` b"


@pytest.mark.parametrize("usage", [None, [], {"input_tokens": -1, "output_tokens": "x"}])
def test_a_reply_without_usage_is_still_a_reply_and_says_so(usage: object) -> None:
    assert read_usage(usage) == (Usage(), False)
    answer = read(golden(usage=usage))
    assert (answer.reply.content, answer.counted) == ("Hello!", False)
