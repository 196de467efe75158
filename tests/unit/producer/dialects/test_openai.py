"""Bodies of OpenAI's calls as fields of a request, and results as completions and embeddings."""

import base64
import math
import struct
from typing import Any

import orjson
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from headgate.producer.dialects import openai
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import request_from
from headgate.shared.job.result import Result, Usage
from tests.support.vendor_answers import VendorAnswer
from tests.unit.producer.dialects.answers import ANSWERS, JOB, STATIC, result_of

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}


def test_all_but_model_messages_and_streaming_is_sent_as_it_is() -> None:
    body = {
        **CHAT, "stream": True, "stream_options": {"include_usage": True}, "user": "u1", "n": 2,
        "metadata": {"a": "b"}, "priority": "high", "x_new": None,
    }  # fmt: skip
    assert openai.chat_fields(body) == {
        **CHAT, "stream": True, "events": True,
        "params": {"user": "u1", "n": 2, "metadata": {"a": "b"}, "priority": "high", "x_new": None},
    }  # fmt: skip
    assert openai.wants_usage(body)
    assert not openai.wants_usage(CHAT)
    assert openai.chat_fields(CHAT) == CHAT
    assert request_from({**openai.chat_fields(body)}).events


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"messages": None}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_a_fault_of_a_chat_names_the_field_of_the_body(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        openai.chat_fields({**CHAT, **more})
    assert refused.value.field == field


@pytest.mark.parametrize("options", ["all", {"include_usage": 1}])
def test_stream_options_that_are_none_are_refused(options: object) -> None:
    with pytest.raises(InvalidRequest, match="stream_options"):
        openai.wants_usage({**CHAT, "stream": True, "stream_options": options})


def test_who_asks_for_a_json_object_wants_json() -> None:
    assert openai.wants_json({**CHAT, "response_format": {"type": "json_object"}})
    assert not openai.wants_json(CHAT)
    assert not openai.wants_json({**CHAT, "response_format": {"type": "json_schema"}})


def test_a_fault_of_a_param_is_named_as_in_the_body() -> None:
    with pytest.raises(InvalidRequest) as refused:
        request_from({**openai.chat_fields({**CHAT, "temperature": 3})})
    fault = openai.as_in_body(refused.value)
    assert (refused.value.field, fault.field) == ("params.temperature", "temperature")
    assert str(fault).startswith("temperature: 3: ")
    same = InvalidRequest("messages", None, "is missing")
    assert openai.as_in_body(same) is same


def test_the_form_of_embeddings_is_no_param() -> None:
    body = {"model": "e-3", "input": ["a"], "encoding_format": "base64", "dimensions": 8}
    assert openai.embedding_fields(body) == {
        "model": "e-3", "input": ["a"], "params": {"dimensions": 8},
    }  # fmt: skip
    assert openai.encoding_of(body) == "base64"
    assert openai.encoding_of({}) == openai.encoding_of({"encoding_format": None}) == "float"
    for bad in ({"input": "a", "encoding_format": "int8"}, {"model": "e-3"}):
        with pytest.raises(InvalidRequest):
            openai.embedding_fields(bad)


@pytest.mark.parametrize("sent", ANSWERS, ids=lambda sent: sent.feature)
def test_every_answer_is_a_completion(sent: VendorAnswer) -> None:
    body = openai.completion(result_of(sent).as_json())
    if sent.dialect == "openai":
        assert orjson.dumps(body) == orjson.dumps(sent.body)
    else:
        ChatCompletion.model_validate(body, strict=True)
        assert body["choices"][0]["message"]["content"] == sent.content
        assert body["id"] == f"chatcmpl-{JOB}"
        assert body["created"] == 1763620945


def completion_of(feature: str) -> dict[str, Any]:
    """Return the completion for this sample."""
    sent = next(one for one in ANSWERS if one.feature == feature)
    return openai.completion(result_of(sent).as_json())


def test_thinking_calls_and_tokens_of_anthropic_are_translated() -> None:
    body = completion_of("thinking, text and two calls of Anthropic")
    assert body["choices"] == [{
        "index": 0, "logprobs": None, "finish_reason": "tool_calls",
        "message": {
            "role": "assistant", "content": "It is 4.", "refusal": None,
            "reasoning_content": "Let me see.",
            "tool_calls": [
                {"id": f"toolu_{n}", "type": "function",
                 "function": {"name": name, "arguments": f'{{"q":"{name}"}}'}}
                for n, name in enumerate(("find", "sum"))
            ],
        },
    }]  # fmt: skip
    # 12 beside the cache, 5 written, 7 read
    assert body["usage"] == {
        "prompt_tokens": 24, "completion_tokens": 30, "total_tokens": 54,
        "prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 11},
    }  # fmt: skip
    assert body["service_tier"] == "default"
    assert "system_fingerprint" not in body  # a string, where OpenAI sends it


def test_a_cited_page_is_an_annotation_of_its_place_in_the_text() -> None:
    told = completion_of("a cited web page")["choices"][0]["message"]
    (note,) = told["annotations"]
    assert note == {
        "type": "url_citation",
        "url_citation": {"start_index": 8, "end_index": 17, "title": "News",
                         "url": "https://example.com/news"},
    }  # fmt: skip
    assert told["content"][8:17] == "it rains."
    assert "annotations" not in completion_of("citations")["choices"][0]["message"]


@pytest.mark.parametrize(
    ("feature", "finish", "refusal"),
    [
        ("cut text of Anthropic", "length", None),
        ("pause_turn", "stop", None),
        ("refusal by its filter", "content_filter", "It is not allowed."),
    ],
)
def test_why_an_answer_of_anthropic_ended(feature: str, finish: str, refusal: str | None) -> None:
    (choice,) = completion_of(feature)["choices"]
    assert (choice["finish_reason"], choice["message"]["refusal"]) == (finish, refusal)


def test_an_answer_without_a_vendors_message_is_a_completion() -> None:
    body = openai.completion(STATIC.as_json())
    ChatCompletion.model_validate(body, strict=True)
    assert body["choices"][0]["message"]["content"] == "Come back later."
    assert body["model"] == "static"


def embedded(message: dict[str, Any] | None) -> dict[str, Any]:
    """Return the result of an embedding job."""
    vectors: Any = [[0.5, -1.25], [1.0, None]]
    return Result(
        JOB, "succeeded", "e-3", embeddings=vectors, usage=Usage(3), message=message
    ).as_json()


@pytest.mark.parametrize("message", [None, {"data": [{"index": 0}, {"index": 1}], "x_new": 1}])
def test_embeddings_are_numbers_or_base64_of_float32(message: dict[str, Any] | None) -> None:
    plain = openai.embeddings(embedded(message), "float")
    assert [row["embedding"] for row in plain["data"]] == [[0.5, -1.25], [1.0, None]]
    body = openai.embeddings(embedded(message), "base64")
    first, second = (base64.b64decode(row["embedding"]) for row in body["data"])
    assert struct.unpack("<2f", first) == (0.5, -1.25)
    assert math.isnan(struct.unpack("<2f", second)[1])
    assert body.get("x_new") == (message or {}).get("x_new")
    whole = openai.embeddings(Result(JOB, "succeeded", "e", embeddings=[[0.5]]).as_json())
    CreateEmbeddingResponse.model_validate(whole, strict=True)
