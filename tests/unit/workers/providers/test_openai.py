"""OpenAI's dialect: what is sent, and what is read out of an answer."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from headgate.shared.errors import SettingError
from headgate.shared.job.request import Request
from headgate.shared.job.result import Usage
from headgate.workers.errors import InvalidOutput
from headgate.workers.provider import Answer
from headgate.workers.providers.http import Response
from headgate.workers.providers.openai import (
    OpenAIProvider,
    chat_body,
    embedding_body,
    read_chat,
    read_embeddings,
    read_usage,
)

ASKED = Request(prompt="Say hi")


def read(body: dict[str, Any], request: Request = ASKED) -> Answer:
    reader = read_embeddings if request.embeds else read_chat
    return reader(body, Response(200, {"x-request-id": "req_1"}, b""), request)


def golden(**changes: Any) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "Hi!",
        "refusal": None,
        "annotations": [],
    }
    return {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "created": 1741569952,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": message | changes.pop("message", {}),
                "logprobs": None,
                "finish_reason": changes.pop("finish_reason", "stop"),
            }
        ],
        "usage": {
            "prompt_tokens": 19,
            "completion_tokens": 10,
            "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 6},
        },
        "service_tier": "default",
    } | changes


def test_a_prompt_and_its_params_pass_through() -> None:
    request = Request(prompt="Say hi", params={"temperature": 1.5, "seed": 7, "stop": None})
    assert chat_body(request, "gpt-4o-mini", 16384, vendor=True) == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Say hi"}],
        "temperature": 1.5,
        "seed": 7,
        "stop": None,
    }


@pytest.mark.parametrize(
    ("model", "vendor", "params", "sent"),
    [
        ("gpt-4o-mini", True, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        ("o3-mini", True, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        ("o4-mini", False, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        ("openai/gpt-5.4", False, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        ("gpt-4o-mini", False, {"max_tokens": 9}, {"max_tokens": 9}),
        ("mistral-large", False, {"max_completion_tokens": 9}, {"max_tokens": 9}),
        ("olmo-2", False, {"max_tokens": 9}, {"max_tokens": 9}),
        ("llama", False, {"max_tokens": 8, "max_completion_tokens": 9}, {"max_tokens": 9}),
        ("llama", False, {"max_tokens": 99999}, {"max_tokens": 4096}),
        ("llama", False, {}, {}),
        ("ft:o4-mini:acme::1", False, {"max_tokens": 9}, {"max_completion_tokens": 9}),
        ("llama", False, {"max_tokens": None}, {"max_tokens": None}),
    ],
)
def test_the_limit_of_the_output_goes_by_the_name_that_the_model_knows(
    model: str, vendor: bool, params: dict[str, Any], sent: dict[str, Any]
) -> None:
    body = chat_body(Request(prompt="x", params=params), model, 4096, vendor=vendor)
    assert {name: value for name, value in body.items() if name.startswith("max")} == sent


def test_marks_of_anthropics_prompt_cache_do_not_reach_openai() -> None:
    marked = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    tool = {"type": "function", "function": {"name": "f"}}
    request = Request(
        messages=[{"role": "user", "content": [marked]}, {"role": "user", "content": "y"}],
        params={"tools": [{**tool, "cache_control": {"type": "ephemeral"}}]},
    )
    body = chat_body(request, "gpt-4o", 0, vendor=True)
    assert body["messages"][0]["content"] == [{"type": "text", "text": "x"}]
    assert body["tools"] == [tool]
    elsewhere = chat_body(request, "gpt-4o", 0, vendor=False)
    assert elsewhere == {"model": "gpt-4o", "messages": request.messages, **request.params}


def test_an_embedding_job_sends_its_input_and_params() -> None:
    request = Request(input=["a", "b"], params={"dimensions": 256})
    assert embedding_body(request, "text-embedding-3-small") == {
        "model": "text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 256,
    }


def test_the_vendors_own_example_is_read() -> None:
    answer = read(golden())
    assert answer.reply.content == "Hi!"
    assert answer.reply.finish_reason == "stop"
    assert answer.reply.provider_model == "gpt-4o-mini-2024-07-18"
    assert answer.reply.request_id == "req_1"
    assert answer.reply.usage == Usage(19, 8, 4, 10, 6)
    assert answer.counted


def test_tool_calls_stay_as_they_are() -> None:
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"content": None, "tool_calls": calls}
    reply = read(golden(message=message, finish_reason="tool_calls")).reply
    assert (reply.content, reply.tool_calls, reply.finish_reason) == (None, calls, "tool_calls")


def test_a_refusal_of_the_model_is_an_answer_without_content() -> None:
    reply = read(golden(message={"content": None, "refusal": "I cannot"})).reply
    assert (reply.content, reply.finish_reason) == (None, "stop")
    assert reply.message == golden(message={"content": None, "refusal": "I cannot"})


def test_an_answer_spent_on_reasoning_is_an_empty_text() -> None:
    reply = read(golden(message={"content": None}, finish_reason="length")).reply
    assert (reply.content, reply.finish_reason) == ("", "length")


def test_an_answer_in_parts_is_joined() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"text": "b"}]
    assert read(golden(message={"content": parts})).reply.content == "ab"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": [None]},
        {"choices": [{"message": "hi"}]},
        golden(message={"content": 7}),
        golden(message={"tool_calls": "none"}),
        golden(message={"tool_calls": ["none"]}),
    ],
)
def test_what_is_no_answer_is_an_invalid_output_of_unknown_cost(body: dict[str, Any]) -> None:
    with pytest.raises(InvalidOutput) as caught:
        read(body)
    assert caught.value.billed is None
    assert caught.value.request_id == "req_1"


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        (None, Usage()),
        ("many", Usage()),
        ({"prompt_tokens": None, "completion_tokens": -4}, Usage()),
        ({"prompt_tokens": True, "completion_tokens": float("inf")}, Usage()),
        ({"prompt_tokens": "5", "completion_tokens": 2.0}, Usage(output_tokens=2)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2}, Usage(2**40, output_tokens=2)),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, Usage(5)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(5, 5)),
        ({"prompt_tokens": 5, "prompt_cache_hit_tokens": 3}, Usage(5, 3)),
        # Google and xAI: reasoning is in the total only
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 17}, Usage(5, 0, 0, 12)),
    ],
)
def test_usage_is_normalised_and_never_an_error(usage: object, read_as: Usage) -> None:
    found, counted = read_usage(usage)
    assert found == read_as
    assert counted == (found != Usage())


def test_embeddings_come_in_the_order_of_the_inputs() -> None:
    rows = [{"index": 1, "embedding": [3.0, 4]}, {"index": 0, "embedding": [1.0, 2.0]}]
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    answer = read({"data": rows, "usage": usage}, Request(input=["a", "b"]))
    assert answer.reply.embeddings == [[1.0, 2.0], [3.0, 4]]
    assert answer.reply.usage == Usage(input_tokens=8)


def test_embeddings_in_base64_are_unpacked() -> None:
    packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
    answer = read({"data": [{"index": 0, "embedding": packed}]}, Request(input="a"))
    assert answer.reply.embeddings == [[0.5, -2.0]]
    assert not answer.counted


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 7, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": ["x"]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": "!"}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": "AAA="}],
        [{"index": 0, "embedding": [1.0]}, "x"],
    ],
)
def test_a_missing_or_broken_embedding_is_an_invalid_output(rows: object) -> None:
    with pytest.raises(InvalidOutput):
        read({"data": rows}, Request(input=["a", "b"]))


def test_a_key_that_cannot_stand_in_a_header_is_named_without_being_shown() -> None:
    with pytest.raises(SettingError) as caught:
        OpenAIProvider(name="openai", api_key="sk-a\nb", base_url=None)
    assert "sk-a" not in str(caught.value)
