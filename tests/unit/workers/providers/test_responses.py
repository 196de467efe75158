"""Responses of OpenAI's: read whole and from events, with all that may stand in an output."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headgate.shared.job.request import Request
from headgate.shared.job.result import Result, Usage
from headgate.shared.job.result_text import decode_result, encode_result
from headgate.workers.errors import AttemptError, ConnectionLost, InvalidOutput
from headgate.workers.provider import Answer
from headgate.workers.providers.http import Response
from headgate.workers.providers.responses.body import response_body
from headgate.workers.providers.responses.parts import ResponseParts
from headgate.workers.providers.responses.reply import read_response, read_usage
from headgate.workers.providers.streaming import AnswerStream
from tests.support.sinks import RecordingSink

OK = Response(200, {"x-request-id": "r-1"}, b"", True, "http://x/v1/responses")
ASKED = Request(dialect="responses", input="What is the secret of the sea?")
KEY = "sk-a-long-key-of-the-test"
USAGE = {
    "input_tokens": 10, "output_tokens": 5, "total_tokens": 15,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 3},
    "output_tokens_details": {"reasoning_tokens": 2},
}  # fmt: skip


def text(*texts: str, **more: Any) -> dict[str, Any]:
    content = [{"type": "output_text", "text": one, "annotations": []} for one in texts]
    return {"type": "message", "role": "assistant", "content": content, **more}


def whole(*output: Any, **more: Any) -> dict[str, Any]:
    return {"object": "response", "id": "resp_1", "model": "m", "status": "completed",
            "error": None, "output": list(output), "usage": USAGE, **more}  # fmt: skip


def read(decoded: dict[str, Any]) -> Answer:
    return read_response(decoded, OK, ASKED, secret=KEY)


CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("decoded", "content", "finish"),
    [
        (whole({"type": "reasoning", "summary": []}, text("a", "b"), text("c")), "abc", "stop"),
        (whole(CALL), None, "tool_calls"),
        (whole(text("Look."), CALL), "Look.", "tool_calls"),
        (whole({"type": "reasoning", "summary": []}), "", "stop"),
        (whole(), "", "stop"),
        (whole({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}), None,
         "stop"),
        (whole({"type": "image_generation_call", "result": "AA"}), None, "stop"),
        (whole({"type": []}), None, "stop"),
        (whole(text("a"), status="incomplete",
               incomplete_details={"reason": "max_output_tokens"}), "a", "length"),
        (whole(text("a"), status="incomplete",
               incomplete_details={"reason": "content_filter"}), "a", "content_filter"),
        (whole(text("a"), status="incomplete", incomplete_details={"reason": "steered"}), "a",
         "steered"),
    ],
)  # fmt: skip
def test_an_output_is_read_in_our_terms(
    decoded: dict[str, Any], content: str | None, finish: str
) -> None:
    reply = read(decoded).reply
    assert (reply.content, reply.finish_reason, reply.message) == (content, finish, decoded)
    assert reply.usage == Usage(10, 4, 3, 5, 2)
    assert (reply.request_id, reply.provider_model) == ("r-1", "m")


def test_calls_have_the_form_of_chat_completions() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "x"}
    assert read(whole(CALL, custom)).reply.tool_calls == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
    ]


def test_the_bill_knows_the_tier_and_tools_without_a_price() -> None:
    assert read(whole(text("a"), service_tier="flex")).terms.service_tier == "flex"
    assert not read(whole(text("a"), service_tier="default")).terms.unpriced
    assert read(whole({"type": "web_search_call"}, text("a"))).terms.unpriced
    assert read_usage(None) == (Usage(), False)


@pytest.mark.parametrize(
    ("decoded", "code"),
    [
        (whole(output=None), "invalid_output"),
        (whole({"type": "function_call"}), "invalid_output"),
        (whole(text(5)), "invalid_output"),  # type: ignore[arg-type]
        (whole(status="failed", error={"code": "server_error", "message": "x"}), "provider_error"),
        (whole(status="failed", error={"code": "invalid_prompt", "message": "x"}),
         "content_filtered"),
        (whole(status="failed", error={"code": "rate_limit_exceeded", "message": "x"}),
         "rate_limited"),
        (whole(status="failed", error={"code": "invalid_image_url", "message": "x"}),
         "invalid_request"),
        (whole(status="cancelled"), "provider_error"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error(decoded: dict[str, Any], code: str) -> None:
    with pytest.raises(AttemptError) as failed:
        read(decoded)
    assert failed.value.code == code
    assert failed.value.billed is None


def test_no_error_repeats_the_request_or_the_key() -> None:
    message = f"bad: What is the secret of the sea? with {KEY}"
    with pytest.raises(AttemptError) as failed:
        read(whole(status="failed", error={"code": "server_error", "message": message}))
    assert "secret of the sea" not in failed.value.message
    assert KEY not in failed.value.message


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: ".encode() + orjson.dumps(event) + b"\n\n"
        for event in events
    )


def delta(piece: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "delta": piece}


CREATED = {"type": "response.created", "response": whole(status="in_progress", usage=None)}


def streamed(*events: dict[str, Any], sink: RecordingSink | None = None) -> dict[str, Any]:
    sink = sink or RecordingSink(events=True)
    stream = AnswerStream(ResponseParts(sink.text), sink, KEY, read_usage)
    stream.feed(sse(*events))
    try:
        return stream.whole_or_raise(OK, ASKED, KEY)
    except AttemptError:
        stream.broke_off()
        raise


def test_the_last_event_brings_the_response() -> None:
    sink = RecordingSink(events=True)
    last = {"type": "response.completed", "response": whole(text("Sun."))}
    got = streamed(CREATED, delta("Su"), delta("n."), last, sink=sink)
    assert got == whole(text("Sun."))
    assert "".join(sink.texts) == "Sun."
    assert (len(sink.heads), len(sink.events)) == (1, 3)


def test_items_are_kept_where_the_last_event_has_none() -> None:
    done = {"type": "response.output_item.done", "output_index": 0, "item": text("Sun.")}
    last = {"type": "response.completed", "response": whole()}
    assert streamed(CREATED, delta("Sun."), done, last)["output"] == [text("Sun.")]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ({"type": "response.failed", "response":
          whole(status="failed", error={"code": "server_error", "message": "x"})},
         "provider_error"),
        ({"type": "response.failed", "response": {"status": "failed"}}, "provider_error"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "x"}, "rate_limited"),
    ],
)  # fmt: skip
def test_a_failure_ends_the_stream_and_no_reader_sees_it(end: dict[str, Any], code: str) -> None:
    sink = RecordingSink(events=True)
    with pytest.raises(AttemptError) as failed:
        streamed(CREATED, delta("Su"), delta("Hm.", "reasoning_summary_text"), end, sink=sink)
    assert (failed.value.code, failed.value.billed) == (code, None)
    assert [made.text for made in sink.made] == ["SuHm."]
    assert len(sink.events) == 2


def test_a_stream_without_its_end_is_a_broken_connection() -> None:
    with pytest.raises(ConnectionLost):
        streamed(CREATED, delta("Su"))
    with pytest.raises(InvalidOutput):
        read(streamed(CREATED, {"type": "response.completed", "response": {"id": "x"}}))


def test_a_body_is_sent_as_it_is() -> None:
    params = {"store": None, "max_output_tokens": 9000, "background": False, "brand_new": [1.5]}
    request = Request(dialect="responses", input=[{"role": "user", "content": "x"}], params=params)
    assert response_body(request, "m", 4096) == {
        "model": "m", "input": [{"role": "user", "content": "x"}], "store": None,
        "max_output_tokens": 4096, "brand_new": [1.5],
    }  # fmt: skip
    follow = Request(dialect="responses", input=[], params={"previous_response_id": "resp_1"})
    assert response_body(follow, "m", 0) == {"model": "m", "previous_response_id": "resp_1"}


def test_a_long_answer_stands_once_in_its_row() -> None:
    long = "word " * 50
    message = whole({"type": "reasoning", "summary": []}, text(long))
    result = Result("id", "succeeded", "m", content=long, message=message, provider_key="0" * 16)
    row = encode_result(result)
    assert row.count(long) == 1
    assert decode_result(row) == result
    refused = whole({"type": "message", "content": [{"type": "refusal", "refusal": "No."}]})
    assert Result("id", "succeeded", "m", message=refused).refusal == "No."
