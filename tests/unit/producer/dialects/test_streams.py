"""Streams and whole answers agree, for both vendors and for callers of both dialects."""

import anthropic
import openai
import orjson
import pytest

from headgate.producer.dialects.streams import EventKind, ServerEvent, translator
from headgate.producer.errors import StreamBroken
from headgate.shared.job.request import Dialect
from tests.support.vendor_answers import (
    Fields,
    VendorAnswer,
    choice,
    chunk,
    completion,
    delta,
    ending,
    message,
    message_events,
)
from tests.unit.producer.dialects.answers import ANSWERS, JOB, STATIC, result_of
from tests.unit.producer.dialects.streaming import (
    BEYOND_THE_SDK,
    Line,
    comparable,
    differences,
    lines_of,
    plain,
    read_by_sdk,
    stream_for,
    streamed,
)

DIALECTS: tuple[Dialect, ...] = ("openai", "anthropic")  # responses have tests of their own
both = pytest.mark.parametrize("dialect", DIALECTS)
every = pytest.mark.parametrize("sent", ANSWERS, ids=lambda sent: sent.feature)

BREAKABLE = {
    "openai": ("audio", "function_call", "reasoning_details", "content in parts", "newer fields"),
    "anthropic": ("newer blocks",),
}
"""Samples with parts that cannot be gone on with in the middle, by the dialect of the caller."""


def sample(feature: str) -> VendorAnswer:
    """Return the sample of this feature."""
    return next(one for one in ANSWERS if one.feature == feature)


def bodies(events: list[ServerEvent]) -> list[Fields]:
    """Return what the events say, without the end of OpenAI's stream."""
    return [orjson.loads(event.data) for event in events if event.data != b"[DONE]"]


@both
@every
def test_the_stream_and_the_whole_answer_agree(dialect: Dialect, sent: VendorAnswer) -> None:
    events = streamed(dialect, lines_of(sent), result_of(sent))
    assert differences(dialect, events, sent) == []


@both
@every
def test_an_answer_that_nobody_streamed_is_streamed_whole(
    dialect: Dialect, sent: VendorAnswer
) -> None:
    assert differences(dialect, streamed(dialect, [], result_of(sent)), sent) == []


@both
@every
def test_the_rest_of_a_stream_comes_from_the_result(dialect: Dialect, sent: VendorAnswer) -> None:
    lines = lines_of(sent)
    for at in range(len(lines)):
        try:
            events = streamed(dialect, lines[:at], result_of(sent))
        except StreamBroken:
            assert sent.feature in BREAKABLE[sent.dialect]
            continue
        assert differences(dialect, events, sent) == []


@pytest.mark.parametrize("include_usage", [True, False])
@every
def test_events_of_the_callers_own_dialect_pass_to_the_byte(
    sent: VendorAnswer, include_usage: bool
) -> None:
    lines = [(kind, line.replace(b'":', b'" :')) for kind, line in lines_of(sent)]
    events = streamed(
        "openai" if sent.dialect == "openai" else "anthropic", lines, result_of(sent),
        include_usage=include_usage,
    )  # fmt: skip
    if sent.dialect == "anthropic":
        assert [event.data for event in events] == [line for _, line in lines]
        assert [event.name for event in events] == [one["type"] for one in bodies(events)]
        return
    *passed, done = events
    assert [event.data for event in passed] == [
        line for _, line in lines if include_usage or orjson.loads(line)["choices"] != []
    ]
    assert (done.name, done.data) == (None, b"[DONE]")
    assert {event.name for event in passed} == {None}


def test_only_the_chunk_with_the_usage_alone_is_left_out() -> None:
    beside = {**chunk({"content": "x"}), "usage": {"prompt_tokens": 1}}
    filtered: Fields = {"choices": [], "prompt_filter_results": [{}]}
    one = stream_for("openai", include_usage=False)
    for kept in (beside, filtered):
        assert len(one.take("openai", orjson.dumps(kept))) == 1
    assert one.take("openai", orjson.dumps(ending()[1])) == []


@both
@pytest.mark.parametrize(
    "feature", ["two calls of OpenAI", "thinking, text and two calls of Anthropic"]
)
def test_the_head_comes_first_and_the_end_last(dialect: Dialect, feature: str) -> None:
    sent = sample(feature)
    for lines in (lines_of(sent), []):
        events = streamed(dialect, lines, result_of(sent))
        first, *_ = bodies(events)
        if dialect == "anthropic":
            assert first["type"] == "message_start"
            assert events[-1].name == "message_stop"
        else:
            assert first["choices"][0]["delta"]["role"] == "assistant"
            assert events[-1].data == b"[DONE]"


def test_chunks_for_anthropics_events() -> None:
    sent = sample("thinking, text and two calls of Anthropic")
    head, *chunks, usage = bodies(streamed("openai", lines_of(sent), result_of(sent)))
    assert head["id"] == f"chatcmpl-{JOB}"
    assert (head["object"], head["created"]) == ("chat.completion.chunk", 1763620945)
    assert head["model"] == "claude-haiku-4-5-20251001"
    assert head["usage"] is None
    deltas = [one["choices"][0]["delta"] for one in chunks]
    first = {"id": "toolu_0", "type": "function", "function": {"name": "find", "arguments": ""}}
    assert deltas == [
        {"reasoning_content": "Let me"}, {"reasoning_content": " see."},
        {"content": "It "}, {"content": "is 4."},
        {"tool_calls": [{"index": 0, **first}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"q":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"find"}'}}]},
        {"tool_calls": [{"index": 1, "id": "toolu_1", "type": "function",
                         "function": {"name": "sum", "arguments": ""}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"q":'}}]},
        {"tool_calls": [{"index": 1, "function": {"arguments": '"sum"}'}}]},
        {},
    ]  # fmt: skip
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 54)


def test_events_for_openais_chunks() -> None:
    sent = sample("two calls of OpenAI")
    events = bodies(streamed("anthropic", lines_of(sent), result_of(sent)))
    assert [(one["type"], one.get("index")) for one in events] == [
        ("message_start", None),
        ("content_block_start", 0), ("content_block_delta", 0), ("content_block_stop", 0),
        ("content_block_start", 1), *[("content_block_delta", 1)] * 2, ("content_block_stop", 1),
        ("content_block_start", 2), *[("content_block_delta", 2)] * 2, ("content_block_stop", 2),
        ("message_delta", None), ("message_stop", None),
    ]  # fmt: skip
    assert events[0]["message"]["model"] == "gpt-4o-mini-2024-07-18"
    assert events[-2]["delta"]["stop_reason"] == "tool_use"
    assert events[-2]["usage"]["input_tokens"] == 11


@both
def test_pieces_of_calls_in_turn_reach_each_their_own_call(dialect: Dialect) -> None:
    def piece(index: int, text: str, **more: object) -> Fields:
        return chunk({"tool_calls": [{"index": index, **more, "function": {"arguments": text}}]})

    named = [
        {"id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": ""}}
        for n in range(2)
    ]
    chunks = [
        chunk({"role": "assistant", "tool_calls": [{"index": 0, **named[0]}]}),
        chunk({"tool_calls": [{"index": 1, **named[1]}]}),
        piece(0, '{"a"'), piece(1, '{"b"'), piece(0, ":1}"), piece(1, ":2}"),
        chunk(finish_reason="tool_calls"),
    ]  # fmt: skip
    calls = [
        {**call, "function": {"name": f"f{n}", "arguments": f'{{"{name}":{n + 1}}}'}}
        for n, (call, name) in enumerate(zip(named, "ab", strict=True))
    ]
    body = completion(choice({"tool_calls": calls}, "tool_calls"))
    sent = VendorAnswer("in turn", "openai", body, chunks, None, "tool_calls")
    assert differences(dialect, streamed(dialect, lines_of(sent), result_of(sent)), sent) == []


def test_google_numbers_all_calls_nought() -> None:
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": f'{{"n":{n}}}'}}
        for n in range(2)
    ]
    chunks = [
        *(chunk({"role": "assistant", "tool_calls": [{"index": 0, **call}]}) for call in calls),
        chunk(finish_reason="stop"),
    ]
    body = completion(choice({"tool_calls": calls}))
    sent = VendorAnswer("Google's calls", "openai", body, chunks, None)
    events = streamed("anthropic", lines_of(sent), result_of(sent))
    assert differences("anthropic", events, sent) == []


@both
@every
def test_the_text_of_an_older_worker_is_streamed_too(dialect: Dialect, sent: VendorAnswer) -> None:
    if sent.feature in BEYOND_THE_SDK:
        return
    said, result = (sent.content or "").encode(), result_of(sent)
    pieces: list[Line] = [("text", piece) for piece in (said[:2], said[2:9], said[9:]) if piece]
    for lines in (pieces, pieces[:1]):
        made = read_by_sdk(dialect, streamed(dialect, lines, result))
        assert text_in(made) == text_in(plain(dialect, result))


def text_in(body: Fields) -> str:
    """Return the text of a completion or of a message."""
    if "choices" in body:
        return body["choices"][0]["message"].get("content") or ""
    return "".join(block.get("text") or "" for block in body["content"])


@both
def test_a_fixed_answer_is_streamed(dialect: Dialect) -> None:
    made = read_by_sdk(dialect, streamed(dialect, [], STATIC))
    assert comparable(made) == comparable(plain(dialect, STATIC))


@both
@every
def test_a_stream_that_is_no_beginning_of_the_result_is_void(
    dialect: Dialect, sent: VendorAnswer
) -> None:
    if not sent.content:
        return
    one = stream_for(dialect)
    one.take("text", b"Another answer")
    with pytest.raises(StreamBroken):
        one.end(result_of(sent))
    (failed,) = one.fail("provider_error", "begun anew", 502)
    assert b"begun anew" in failed.data


@both
def test_an_answer_that_begins_anew_is_void(dialect: Dialect) -> None:
    sent = sample("cut text of Anthropic")
    lines = lines_of(sent)
    one = stream_for(dialect)
    for line in lines[:3]:
        one.take(*line)
    with pytest.raises(StreamBroken):
        one.take(*lines[0])
    with pytest.raises(StreamBroken):
        one.take("text", b"It is")


@both
def test_a_second_head_before_any_content_is_left_out(dialect: Dialect) -> None:
    sent = sample("cut text of Anthropic")
    lines = lines_of(sent)
    twice = streamed(dialect, [lines[0], *lines], result_of(sent))
    assert twice == streamed(dialect, lines, result_of(sent))


def test_an_empty_answer_has_an_empty_text_for_openais_callers() -> None:
    sent = sample("no text of Anthropic")
    for lines in (lines_of(sent), []):
        chunks = bodies(streamed("openai", lines, result_of(sent)))
        assert {"content": ""}.items() <= {
            name: value for one in chunks for choice in one["choices"]
            for name, value in choice["delta"].items() if value is not None
        }.items()  # fmt: skip


FENCED = '```json\n{"a": 1}\n```'


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["```", "json\n{\"a\"", ": 1}\n```"], '{"a": 1}'),
        (["{\"a\"", ": 1}"], '{"a": 1}'),
        (["``", "no fence"], "``no fence"),
        (["```json\n1\n``` that is it"], "```json\n1\n``` that is it"),
        (["`"], "`"),
        ([" " * 2000, "x"], " " * 2000 + "x"),
    ],
)  # fmt: skip
def test_a_fence_around_json_is_left_out_of_the_stream(pieces: list[str], text: str) -> None:
    whole = message([{"type": "text", "text": "".join(pieces)}])
    events = message_events(
        whole, [{"type": "text", "text": ""}, *(delta("text_delta", text=one) for one in pieces)]
    )
    sent = VendorAnswer("JSON", "anthropic", whole, events, text)
    one = translator("openai", job_id=JOB, model="m", json_only=True)
    made = [event for line in lines_of(sent) for event in one.take(*line)]
    made += one.end(result_of(sent))
    told = read_by_sdk("openai", made)["choices"][0]["message"]
    assert told["content"] == text


def test_a_fault_ends_openais_stream_without_done() -> None:
    one = stream_for("openai")
    begun = one.take("openai", orjson.dumps(chunk({"role": "assistant", "content": "Hi"})))
    failed = one.fail("overloaded", "too much to do", 503)
    assert bodies(failed) == [{"error": {
        "message": "too much to do", "type": "server_error", "param": None,
        "code": "server_is_overloaded",
    }}]  # fmt: skip
    with pytest.raises(openai.APIError, match="too much to do") as raised:
        read_by_sdk("openai", begun + failed)
    assert raised.value.code == "server_is_overloaded"
    assert one.fail("overloaded", "again") == one.end(STATIC) == []


def test_a_fault_ends_anthropics_stream() -> None:
    one = stream_for("anthropic")
    failed = one.fail("overloaded", "too much to do", 529)
    assert [(event.name, orjson.loads(event.data)) for event in failed] == [(
        "error",
        {"type": "error", "error": {"type": "overloaded_error", "message": "too much to do"}},
    )]  # fmt: skip
    with pytest.raises(anthropic.APIStatusError, match="too much to do"):
        read_by_sdk("anthropic", failed)
    assert one.fail("overloaded", "again") == one.end(STATIC) == []


ODD = (
    b"[]", b"null", b"{", b'{"choices": 3}', b'{"type": 1}',
    b'{"choices": [{"delta": 1, "index": "x"}]}',
    b'{"type": "content_block_delta", "index": [], "delta": 0}',
)  # fmt: skip


@both
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("line", ODD)
def test_odd_events_do_no_harm(dialect: Dialect, kind: EventKind, line: bytes) -> None:
    one = stream_for(dialect)
    one.take(kind, line)
    assert one.end(STATIC)


def test_an_event_is_written_as_a_server_sent_event() -> None:
    assert ServerEvent("ping", b"{}").encoded(7) == b"event: ping\nid: 7\ndata: {}\n\n"
    assert ServerEvent(None, b"[DONE]").encoded() == b"data: [DONE]\n\n"
