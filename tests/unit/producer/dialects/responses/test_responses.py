"""Jobs as responses, whole and streamed: the types of OpenAI's SDK accept all of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai
import orjson
import pytest
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from headgate.producer.dialects.responses.ids import job_of, response_id
from headgate.producer.dialects.responses.response import response
from headgate.producer.dialects.responses.stream import ResponseStream
from headgate.producer.dialects.server_event import ServerEvent
from headgate.producer.errors import StreamBroken
from headgate.shared.job.result import ErrorReport, Result
from tests.support.vendor_answers import Fields, VendorAnswer, chunk, completion
from tests.unit.producer.dialects.answers import ANSWERS, JOB, STATIC, result_of
from tests.unit.producer.dialects.streaming import Line, lines_of

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
WHOLE: TypeAdapter[Response] = TypeAdapter(Response)

TOOLS = [{"type": "function", "name": "find", "parameters": {"type": "object"}}]
ASKED: Fields = {
    "model": "asked", "instructions": "Be brief.", "tools": TOOLS, "temperature": 0.5,
    "metadata": {"run": "7"}, "reasoning": {"effort": "low"}, "max_output_tokens": 100,
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
}  # fmt: skip

every = pytest.mark.parametrize("sent", ANSWERS, ids=lambda sent: sent.feature)


def streamed(
    lines: Sequence[Line], result: Result, *, is_typed: bool = True, **more: Any
) -> list[Fields]:
    """Return what the events say; each has the next number, and has passed OpenAI's types."""
    one = ResponseStream(JOB, {**ASKED, **more})
    events = one.begin() if more.get("background") else []
    for line in lines:
        events += one.take(*line)
    return checked(events + one.end(result), is_typed=is_typed)


def checked(events: Sequence[ServerEvent], *, is_typed: bool) -> list[Fields]:
    """Return what the events say, once OpenAI's types have accepted them (`is_typed`)."""
    bodies: list[Fields] = [orjson.loads(event.data) for event in events]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    for event, body in zip(events, bodies, strict=True):
        assert event.name == body["type"]
        if is_typed:
            assert EVENT.validate_json(event.data, strict=True).type == body["type"]
    return bodies


def read_by_sdk(bodies: Sequence[Fields]) -> str:
    """Return the text of the response that OpenAI's SDK makes of the events."""
    state: ResponseStreamState[Any] = ResponseStreamState(
        input_tools=openai.omit, text_format=openai.omit
    )
    texts = []
    for body in bodies:
        for event in state.handle_event(EVENT.validate_python(body)):
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
    return "".join(texts)


def put_together(bodies: Sequence[Fields]) -> list[Fields]:
    """Return the items whose pieces the deltas are."""
    items: dict[int, Fields] = {}
    for body in bodies:
        kind = body["type"].removeprefix("response.")
        item = items.get(body.get("output_index", -1), {})
        if kind == "output_item.added":
            items[body["output_index"]] = {**body["item"]}
        elif kind == "content_part.added":
            item["content"] = [*item.get("content", ()), {**body["part"]}]
        elif kind in ("function_call_arguments.delta", "custom_tool_call_input.delta"):
            item["arguments" if "arguments" in item else "input"] += body["delta"]
        elif kind.endswith(".delta"):
            part = item["content"][body["content_index"]]
            part["refusal" if "refusal" in part else "text"] += body["delta"]
    return [items[place] for place in sorted(items)]


def contents(items: Sequence[Fields]) -> list[Any]:
    """Return what the items say, without what the SDK adds."""
    found: list[Any] = []
    for item in items:
        if item.get("content"):
            parts = item["content"]
            found.append([part.get("text", part.get("refusal")) for part in parts])
        elif item["type"] in ("function_call", "custom_tool_call"):
            written = item["arguments"] if "arguments" in item else item["input"]
            found.append((item["call_id"], item["name"], loaded(written)))
    return found


def loaded(text: str) -> Any:
    """Return JSON decoded, another text as it is."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text


@every
def test_a_whole_answer_is_a_response(sent: VendorAnswer) -> None:
    body = response(result_of(sent).as_json(), ASKED)
    WHOLE.validate_json(orjson.dumps(body), strict=True)
    assert body["id"] == response_id(JOB)
    assert body["status"] == ("incomplete" if sent.finish_reason in ("length", "content_filter")
                              else "completed")  # fmt: skip
    texts = [
        part["text"]
        for item in body["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    ]
    assert "".join(texts) == (sent.content or "")
    assert body["usage"]["total_tokens"] == (
        body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    )


@every
@pytest.mark.parametrize("background", [False, True])
def test_the_stream_and_the_whole_answer_agree(sent: VendorAnswer, background: bool) -> None:
    result = result_of(sent)
    events = streamed(lines_of(sent), result, background=background)
    whole = response(result.as_json(), {**ASKED, "background": background})
    last = events[-1]["response"]
    assert contents(last["output"]) == contents(whole["output"])
    assert {**last, "output": []} == {**whole, "output": []}
    assert contents(put_together(events)) == contents(whole["output"])
    assert read_by_sdk(events) == (sent.content or "")
    kinds = [event["type"] for event in events]
    head = ["response.created", "response.in_progress"]
    if background:
        head.insert(1, "response.queued")
    assert kinds[: len(head)] == head
    added = [event["item"]["id"] for event in events if event["type"].endswith("item.added")]
    done = [event["item"]["id"] for event in events if event["type"].endswith("item.done")]
    assert sorted(added) == sorted(done) == sorted({*added})


@every
def test_an_answer_that_nobody_streamed_is_streamed_whole(sent: VendorAnswer) -> None:
    whole = response(result_of(sent).as_json(), ASKED)
    assert contents(streamed([], result_of(sent))[-1]["response"]["output"]) == contents(
        whole["output"]
    )


@every
def test_the_rest_of_a_stream_comes_from_the_result(sent: VendorAnswer) -> None:
    lines, result = lines_of(sent), result_of(sent)
    whole = response(result.as_json(), ASKED)
    for at in range(len(lines)):
        try:
            events = streamed(lines[:at], result, is_typed=False)
        except StreamBroken:
            assert sent.feature in ("content in parts", "newer fields"), at
            continue
        assert contents(events[-1]["response"]["output"]) == contents(whole["output"])


@every
def test_the_text_alone_is_a_stream_too(sent: VendorAnswer) -> None:
    if sent.content:
        events = streamed([("text", sent.content.encode())], result_of(sent))
        assert events[-1]["type"] in ("response.completed", "response.incomplete")


def test_a_fixed_answer_is_a_response() -> None:
    body = response(STATIC.as_json(), ASKED)
    WHOLE.validate_json(orjson.dumps(body), strict=True)
    assert body["output"][0]["content"][0]["text"] == "Come back later."


def test_texts_of_one_answer_are_told_in_the_order_of_openais_reference() -> None:
    sent = next(one for one in ANSWERS if one.feature == "text of OpenAI")
    assert [event["type"] for event in streamed(lines_of(sent), result_of(sent))] == [
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added", "response.output_text.delta", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "expected", "error"),
    [
        ("queued", None, "queued", None),
        ("deferred", None, "queued", None),
        ("running", None, "in_progress", None),
        ("failed", "rate_limited", "failed", "rate_limit_exceeded"),
        ("failed", "context_length", "failed", "invalid_prompt"),
        ("expired", "deadline", "failed", "server_error"),
        ("cancelled", "cancelled", "cancelled", None),
    ],
)
def test_a_job_without_an_answer_is_a_response(
    status: Any, code: Any, expected: str, error: str | None
) -> None:
    report = None if code is None else ErrorReport(code, "why", False)
    result = Result(JOB, status, "asked", error=report)
    body = response(result.as_json(), ASKED)
    WHOLE.validate_json(orjson.dumps(body), strict=True)
    assert (body["status"], (body["error"] or {}).get("code")) == (expected, error)
    if result.ended:
        events = streamed([("text", b"It is")], result)
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["status"] == expected
        assert events[-1]["response"]["output"][0]["status"] == "incomplete"


def test_a_fault_of_the_stream_has_the_number_of_the_event_before() -> None:
    one = ResponseStream(JOB, ASKED)
    events = one.take("text", b"It is")
    (fault,) = one.fail("unavailable", "stopping")
    body = EVENT.validate_json(fault.data, strict=True)
    assert body.type == "error"
    assert body.sequence_number == len(events) - 1
    assert one.end(STATIC) == []


def test_an_answer_that_began_anew_breaks_the_stream() -> None:
    one = ResponseStream(JOB, ASKED)
    one.take("text", b"It is")
    with pytest.raises(StreamBroken):
        one.take("openai", orjson.dumps(chunk({"content": "x"})))
    other = ResponseStream(JOB, ASKED)
    other.take("text", b"Another answer")
    with pytest.raises(StreamBroken):
        other.end(STATIC)


def test_ids_are_those_of_jobs() -> None:
    assert job_of(response_id(JOB)) == JOB
    assert job_of("resp_123") is None
    assert job_of(f"{response_id(JOB)}0") is None
    assert job_of(JOB) is None


NATIVE_OUTPUT: list[Fields] = [
    {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
    {"id": "ws_1", "type": "web_search_call", "status": "completed",
     "action": {"type": "search", "query": "rain"}},
    {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [
        {"type": "output_text", "text": "It rains.", "annotations": [], "logprobs": []}]},
    {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1",
     "name": "find", "arguments": '{"q":1}'},
]  # fmt: skip


def native() -> tuple[list[Line], Result]:
    """Return the stream and the result of a vendor that has the Responses API."""
    usage = {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 0,
                                                         "cache_write_tokens": 0},
             "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0},
             "total_tokens": 5}  # fmt: skip
    body = {**response(STATIC.as_json(), {}), "id": "resp_vendor", "output": NATIVE_OUTPUT,
            "usage": usage, "model": "gpt-4o-2024-08-06", "created_at": 1.5}  # fmt: skip
    begun = {**body, "output": [], "status": "in_progress", "usage": None}
    events: list[Fields] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for place, item in enumerate(NATIVE_OUTPUT):
        empty = {"content": [], "arguments": "", "summary": []}
        start = {**item, **{name: empty[name] for name in item if name in empty}}
        where = {"output_index": place}
        named = {**where, "item_id": item["id"]}
        events.append({"type": "response.output_item.added", **where, "item": start})
        if item["type"] == "message":
            part = {"content_index": 0, **named}
            empty_part = {**item["content"][0], "text": ""}
            events += [
                {"type": "response.content_part.added", **part, "part": empty_part},
                {"type": "response.output_text.delta", **part, "delta": "It ", "logprobs": []},
                {"type": "response.output_text.delta", **part, "delta": "rains.", "logprobs": []},
                {"type": "response.output_text.done", **part, "text": "It rains.", "logprobs": []},
                {"type": "response.content_part.done", **part, "part": item["content"][0]},
            ]
        elif item["type"] == "function_call":
            events += [
                {"type": "response.function_call_arguments.delta", **named, "delta": '{"q":1}'},
                {"type": "response.function_call_arguments.done", **named, "arguments": '{"q":1}'},
            ]
        elif item["type"] == "web_search_call":
            events.append({"type": "response.web_search_call.in_progress", **named})
        events.append({"type": "response.output_item.done", **where, "item": item})
    events.append({"type": "response.completed", "response": body})
    numbered = [{**event, "sequence_number": 7 + n} for n, event in enumerate(events)]
    lines: list[Line] = [("responses", orjson.dumps(event)) for event in numbered]
    result = replace(STATIC, message=body, content="It rains.", model_used="gpt-4o")
    return lines, result


def test_a_vendors_own_events_pass_through_with_our_ids_and_numbers() -> None:
    lines, result = native()
    events = streamed(lines, result)
    assert len(events) == len(lines)
    assert [event["type"] for event in events] == [orjson.loads(one)["type"] for _, one in lines]
    last = events[-1]["response"]
    assert last["output"] == NATIVE_OUTPUT
    assert last["id"] == response_id(JOB)
    assert last["model"] == "gpt-4o-2024-08-06"
    assert last == response(result.as_json(), ASKED)


def test_the_rest_of_a_vendors_own_stream_comes_from_its_response() -> None:
    lines, result = native()
    for at in range(len(lines)):
        events = streamed(lines[:at], result, is_typed=False)
        assert events[-1]["response"]["output"] == NATIVE_OUTPUT
        done = [event["item"] for event in events if event["type"].endswith("item.done")]
        assert done == NATIVE_OUTPUT


def test_calls_whose_pieces_come_in_turn_are_kept_apart() -> None:
    calls = [
        {"id": f"call_{n}", "type": "function", "function": function}
        for n in (0, 1)
        if (function := {"name": "f", "arguments": f'{{"a":{n}}}'})
    ]
    pieces = [
        {"index": 0, "id": "call_0", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "id": "call_1", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 1, "function": {"arguments": '{"a":1}'}},
        {"index": 0, "function": {"arguments": ":0}"}},
    ]
    told = {"role": "assistant", "content": None, "tool_calls": calls}
    body = completion({"index": 0, "message": told, "finish_reason": "tool_calls"})
    result = replace(STATIC, message=body, content=None, tool_calls=calls)
    lines: list[Line] = [
        ("openai", orjson.dumps(chunk({"tool_calls": [piece]}))) for piece in pieces
    ]
    output = streamed(lines, result)[-1]["response"]["output"]
    assert [item["arguments"] for item in output] == ['{"a":0}', '{"a":1}']


def test_odd_events_and_newer_parts_break_no_stream() -> None:
    stream = ResponseStream(JOB, ASKED)
    opened = {"type": "response.output_item.added", "output_index": 0,
              "item": {"id": "msg_1", "type": "message", "content": []}}  # fmt: skip
    part = {"type": "response.output_text.delta", "output_index": 0, "content_index": -5}
    odd: list[Fields] = [opened, {}, {"type": []}, {"output_index": 0}, part]
    for event in odd:
        stream.take("responses", orjson.dumps(event))
    picture = {"type": "output_picture", "url": "x"}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": [picture]}
    sent = {"id": "resp_of_vendor", "output": [item], "status": "completed"}
    ended = stream.end(Result(JOB, "succeeded", "m", content="", message=sent))
    assert orjson.loads(ended[-1].data)["response"]["output"] == [item]
