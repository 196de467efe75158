"""The vendor's events are handed on as they came, each as proper JSON in one line."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError
from headgate.workers.providers.anthropic import read_usage as anthropic_usage
from headgate.workers.providers.chat_parts import ChatParts
from headgate.workers.providers.http import Response
from headgate.workers.providers.message_parts import MessageParts
from headgate.workers.providers.openai import read_usage as openai_usage
from headgate.workers.providers.streaming import AnswerStream
from tests.support.sinks import RecordingSink

KEY = "sk-test-0123456789abcdef"


def streamed(raw: bytes, dialect: str = "openai", **options: Any) -> RecordingSink:
    """What a sink has of the stream of these bytes."""
    sink = RecordingSink(events=True)
    parts = ChatParts(sink.text) if dialect == "openai" else MessageParts(sink.text, **options)
    stream = AnswerStream(parts, sink, KEY)
    stream.feed(raw)
    stream.whole_or_raise(Response(200, {}, b"", True), Request(prompt="hello"), KEY)
    return sink


def sse(*events: bytes) -> bytes:
    """These events as they travel."""
    return b"".join(b"data: " + event + b"\n\n" for event in events)


def chunk(content: str, **more: Any) -> bytes:
    """One chunk of OpenAI's."""
    return orjson.dumps({"choices": [{"index": 0, "delta": {"content": content}}], **more})


HEAD = b'{"choices": [{"index":0,"delta":{"role":"assistant","content":"","refusal":null}}]}'
FIRST = b'{ "choices": [{"index":0, "delta":{"content":"a"}}], "new": 1.50 }'
LAST = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
USAGE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'


def test_events_come_byte_for_byte_and_the_head_is_told_apart() -> None:
    sink = streamed(sse(HEAD, FIRST, LAST, USAGE, b"[DONE]"))
    assert sink.heads == [HEAD]
    assert sink.events == [FIRST, LAST, USAGE]
    assert sink.dialects == {"openai"}
    assert sink.texts == ["a"]


@pytest.mark.parametrize("delta", [
    {"tool_calls": [{"index": 0, "id": "c"}]}, {"reasoning_content": "hm"}, {"refusal": "no"},
    {"role": "assistant", "newer": [1]},
], ids=str)  # fmt: skip
def test_all_but_a_role_and_empty_fields_is_a_part_of_the_answer(delta: dict[str, Any]) -> None:
    event = orjson.dumps({"choices": [{"index": 0, "delta": delta}]})
    sink = streamed(sse(HEAD, event, LAST, b"[DONE]"))
    assert sink.heads == [HEAD]


def test_the_head_of_a_message_is_its_start_and_that_of_an_empty_block() -> None:
    heads = [
        b'{"type":"message_start","message":{"id":"m","usage":{"input_tokens":1}}}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
    ]
    ping = b'{"type": "ping"}'
    rest = [
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"```json"}}',
        b'{"type":"content_block_stop","index":0}',
        b'{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}',
        b'{"type":"message_stop"}',
    ]
    sink = streamed(sse(*heads, ping, *rest), "anthropic", json_only=True)
    assert (sink.heads, sink.events) == (heads, rest)
    assert sink.dialects == {"anthropic"}
    assert sink.texts == [], "a fence is no part of the text"


def test_nothing_from_a_fault_on_is_handed_on() -> None:
    sink = RecordingSink(events=True)
    stream = AnswerStream(ChatParts(sink.text), sink, KEY)
    stream.feed(sse(HEAD, FIRST, b'{"error":{"message":"overloaded"}}', FIRST))
    with pytest.raises(AttemptError):
        stream.whole_or_raise(Response(200, {}, b"", True), Request(prompt="hello"), KEY)
    assert sink.events == [FIRST]


def test_a_key_is_masked_and_lines_are_one() -> None:
    event = (
        b'{"id":"' + KEY.encode() + b'",\ndata: "choices":[{"index":0,"delta":{"content":"a"}}]}'
    )
    sink = streamed(sse(event, LAST, b"[DONE]"))
    assert KEY.encode() not in sink.events[0]
    assert orjson.loads(sink.events[0])["id"] == "***"
    assert b"\n" not in sink.events[0]


def test_a_sink_for_texts_gets_no_events() -> None:
    sink = RecordingSink()
    AnswerStream(ChatParts(sink.text), sink, KEY).feed(sse(HEAD, FIRST, LAST))
    assert (sink.heads, sink.events, sink.texts) == ([], [], ["a"])


def escaped(units: list[str]) -> list[bytes]:
    """Chunks whose contents have these UTF-16 units, as escapes."""
    start, end = b'{"choices":[{"index":0,"delta":{"content":"', b'"}}]}'
    return [start + unit.encode() + end for unit in units]


HALF = b'{"choices":[{"index":0,"delta":{"content":"a\\ud83d"}}]}'


def nested(levels: int) -> bytes:
    """JSON of so many levels."""
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("levels", [300, 900])
def test_an_event_that_is_nested_deep_is_cut_and_the_answer_goes_on(levels: int) -> None:
    deep = b'{"choices":[],"x":' + nested(levels) + b"}"
    sink = streamed(sse(HALF, deep, FIRST, LAST, b"[DONE]"))
    assert len(sink.events) == 4
    assert sink.events[1].startswith(b'{"choices":[],"x":{"a":{"a":')


def test_a_delta_that_is_nested_too_deep_garbles_the_answer() -> None:
    deep = b'{"choices":[{"index":0,"delta":{"x":' + nested(1000) + b"}}]}"
    with pytest.raises(AttemptError):
        streamed(sse(FIRST, deep, LAST, b"[DONE]"))


def test_an_index_that_is_no_number_is_none() -> None:
    start = b'{"type":"content_block_start","index":[1],"content_block":{"type":"text","text":""}}'
    text = b'{"type":"content_block_delta","index":[1],"delta":{"type":"text_delta","text":"a"}}'
    half = text.replace(b'"a"', b'"\\ud83d"')
    end = b'{"type":"message_stop"}'
    assert streamed(sse(start, text, half, text, end), "anthropic").texts[0] == "a"
    call = b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":{},"id":"c"}]}}]}'
    assert streamed(sse(call, LAST, b"[DONE]")).events == [call, LAST]


def test_what_was_made_has_no_half_of_a_character() -> None:
    sink = RecordingSink(events=True)
    stream = AnswerStream(ChatParts(sink.text), sink, KEY)
    stream.feed(sse(HALF))
    stream.broke_off()
    assert sink.made[0].text == "a\ufffd"


@given(st.text(min_size=1, max_size=12))
def test_characters_cut_in_half_come_whole_in_proper_json(text: str) -> None:
    units = [f"\\u{unit:04x}" for unit in memoryview(text.encode("utf-16-le")).cast("H")]
    sink = streamed(sse(*escaped(units), LAST, b"[DONE]"))
    contents = [
        choice["delta"].get("content", "")
        for event in sink.events for choice in orjson.loads(event)["choices"]
    ]  # fmt: skip
    assert "".join(contents) == text == "".join(sink.texts)


def test_halves_of_several_choices_are_kept_apart() -> None:
    first = b'{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}'
    other = b'{"choices":[{"index":1,"delta":{"content":"b"}}]}'
    second = b'{"choices":[{"index":0,"delta":{"content":"\\ude00"}}]}'
    sink = streamed(sse(first, other, second, LAST, b"[DONE]"))
    deltas = [orjson.loads(event)["choices"][0]["delta"] for event in sink.events[:3]]
    assert deltas == [{"content": ""}, {"content": "b"}, {"content": "\U0001f600"}]


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_what_was_made_of_a_broken_answer_counts_texts_of_all_kinds(dialect: str) -> None:
    events = {
        "openai": [
            HEAD, FIRST,
            b'{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}',
            b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}',
        ],
        "anthropic": [
            b'{"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}',
            b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}',
            b'{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"hm"}}',
            b'{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{}"}}',
        ],
    }[dialect]  # fmt: skip
    sink = RecordingSink(events=True)
    if dialect == "openai":
        stream = AnswerStream(ChatParts(sink.text), sink, KEY, openai_usage)
    else:
        stream = AnswerStream(MessageParts(sink.text), sink, KEY, anthropic_usage)
    stream.broke_off()
    assert sink.made == [], "nothing has come"
    stream.feed(sse(*events))
    stream.broke_off()
    (made,) = sink.made
    assert sorted(made.text) == sorted("ahm{}")
    assert made.usage.input_tokens == (0 if dialect == "openai" else 7)
