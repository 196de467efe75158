"""Streams of both dialects are read however they are cut, and broken ones are recognised."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError, ConnectionLost, InvalidOutput, Overloaded
from headgate.workers.providers.chat_parts import ChatParts
from headgate.workers.providers.http import Response
from headgate.workers.providers.message_parts import MessageParts
from headgate.workers.providers.pieces import TOGETHER, GrowingText
from headgate.workers.providers.reading import NODE
from headgate.workers.providers.sse import Event, EventParser
from headgate.workers.providers.streaming import AnswerStream

REQUEST = Request(prompt="hello")
RAW = (
    "\ufeff: a comment\n\ndata: one\r\n\r\nevent: named\ndata:two\ndata: lines\n\n"
    "id: 7\nretry: 10\r\rdata: grün €\n\ndata\n\n:\n\ndata: last\r\n\r\n"
).encode()
READ: list[Event] = [
    ("", b"one"), ("named", b"two\nlines"), ("", "grün €".encode()), ("", b""), ("", b"last"),
]  # fmt: skip


@given(st.lists(st.integers(0, len(RAW)), max_size=12))
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    events, places = EventParser(), [0, *sorted(cuts), len(RAW)]
    read = [event for start, end in pairwise(places) for event in events.feed(RAW[start:end])]
    assert read == READ
    assert events.rest() == []


def test_events_come_byte_by_byte_each_at_its_blank_line() -> None:
    events = EventParser()
    assert [event for at in range(len(RAW)) for event in events.feed(RAW[at : at + 1])] == READ


def test_a_last_event_without_its_blank_line_is_read_at_the_end() -> None:
    events = EventParser()
    assert events.feed(b"data: one\n\ndata: tw") == [("", b"one")]
    assert events.feed(b"o") == []
    assert events.rest() == [("", b"two")]


def sse(*events: Any) -> bytes:
    """These events as they travel; a text stands for itself."""
    shown = [event if isinstance(event, str) else orjson.dumps(event).decode() for event in events]
    return "".join(f"data: {event}\n\n" for event in shown).encode()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> Any:
    """One chunk of OpenAI's."""
    return {"model": "m", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}],
            **more}  # fmt: skip


def taken(stream: AnswerStream, raw: bytes) -> dict[str, Any]:
    """What the stream of these bytes puts together; raises its error."""
    stream.feed(raw)
    return stream.whole_or_raise(Response(200, {"x-request-id": "r1"}, b"", True), REQUEST, "key")


def chat(*events: Any) -> tuple[dict[str, Any], list[str]]:
    """The message and the pieces of a chat completion with these events."""
    pieces: list[str] = []
    whole = taken(AnswerStream(ChatParts(pieces.append)), sse(*events))
    return whole, pieces


def test_text_is_handed_on_as_it_comes_and_usage_is_in_the_last_chunk() -> None:
    whole, pieces = chat(
        chunk({"role": "assistant", "content": ""}, usage=None),
        chunk({"content": "Hel"}, usage=None),
        chunk({"content": "lo"}, usage=None),
        chunk(finish="length", usage=None),
        {"model": "m", "choices": [], "usage": {"prompt_tokens": 3}},
        "[DONE]",
    )
    assert pieces == ["Hel", "lo"]
    assert whole["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "length",
        }
    ]
    assert (whole["usage"], whole["model"]) == ({"prompt_tokens": 3}, "m")


def test_usage_that_grows_in_every_chunk_is_taken_from_the_last() -> None:
    whole, _ = chat(
        chunk({"content": "a"}, usage={"completion_tokens": 1}),
        chunk({"content": "b"}, "stop", usage={"completion_tokens": 2}),
    )
    assert whole["usage"] == {"completion_tokens": 2}


def test_a_stream_without_done_is_whole_once_its_finish_has_come() -> None:
    whole, _ = chat(chunk({"content": "a"}), chunk(finish="stop"))
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert "usage" not in whole


def call(
    index: int, arguments: str = "", call_id: str | None = None, name: str | None = None
) -> Any:
    """A piece of a tool call."""
    piece: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id is not None:
        piece |= {"id": call_id, "type": "function"}
        piece["function"]["name"] = name
    return piece


def test_the_pieces_of_two_tool_calls_are_put_together() -> None:
    whole, pieces = chat(
        chunk({"content": None, "tool_calls": [call(0, "", "c1", "find")]}),
        chunk({"tool_calls": [call(0, '{"a"'), call(1, "", "c2", "tell")]}),
        chunk({"tool_calls": [call(1, "{}"), call(0, ": 1}")]}),
        chunk(finish="tool_calls"),
        "[DONE]",
    )
    message = whole["choices"][0]["message"]
    calls = [(one["id"], one["function"]) for one in message["tool_calls"]]
    assert calls == [
        ("c1", {"name": "find", "arguments": '{"a": 1}'}),
        ("c2", {"name": "tell", "arguments": "{}"}),
    ]
    assert message["content"] is None
    assert pieces == []


def test_calls_that_all_have_the_number_0_are_distinguished_by_their_ids() -> None:
    whole, _ = chat(
        chunk({"tool_calls": [call(0, "{}", "c1", "find"), call(0, "[]", "c2", "tell")]}),
        chunk(finish="tool_calls"),
    )
    calls = whole["choices"][0]["message"]["tool_calls"]
    assert [one["function"]["arguments"] for one in calls] == ["{}", "[]"]


ERROR = {"error": {"message": "too much", "type": "overloaded_error", "code": None}}


def test_an_error_after_output_may_be_billed_and_one_before_is_as_its_code_says() -> None:
    with pytest.raises(Overloaded) as before:
        chat(ERROR)
    assert before.value.billed is False
    with pytest.raises(Overloaded) as after:
        chat(chunk({"content": "a"}), ERROR)
    assert after.value.billed is None
    assert "too much" in after.value.message


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"", ConnectionLost),
        (sse(chunk({"content": "a"})), ConnectionLost),
        (sse(chunk({"content": "a"})) + b'data: {"choices": [{"del', ConnectionLost),
        (sse(chunk({"content": "a"}), '{"choices": [{"del', chunk(finish="stop")), InvalidOutput),
        (b"data: [DONE]", None),
        (sse(chunk({"content": "a"}), chunk(finish="stop")) + b'data: {"usa', None),
    ],
    ids=["nothing", "no end", "cut in a line", "no JSON", "no blank line", "cut after the end"],
)
def test_a_stream_that_stops_before_its_end_is_no_answer(
    raw: bytes, kind: type[AttemptError] | None
) -> None:
    stream = AnswerStream(ChatParts(lambda _: None))
    if kind is None:
        assert taken(stream, raw)
        return
    with pytest.raises(kind) as caught:
        taken(stream, raw)
    assert caught.value.billed is None


def test_the_text_of_other_choices_is_not_handed_on_and_what_is_no_chunk_is_left_out() -> None:
    other = {"choices": [{"index": 1, "delta": {"content": "no"}}]}
    whole, pieces = chat(other, [], 7, chunk({"content": [{"text": "a"}, {"x": 1}]}), "[DONE]")
    assert pieces == ["a"]
    assert [one["index"] for one in whole["choices"]] == [0, 1]
    assert whole["choices"][0]["finish_reason"] is None
    assert whole["choices"][1]["message"] == {"content": "no"}


def block(index: int, kind: str, **more: Any) -> list[Any]:
    """A content block that begins."""
    opened = {"type": kind, **more}
    return [{"type": "content_block_start", "index": index, "content_block": opened}]


def delta(index: int, kind: str, **more: Any) -> Any:
    """A piece of a content block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


END = [
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
]


def start() -> Any:
    """How a message begins."""
    usage = {"input_tokens": 5, "output_tokens": 1}
    return {"type": "message_start", "message": {"model": "c", "content": [], "usage": usage}}


def test_a_message_is_put_together_from_its_blocks_and_its_last_counts() -> None:
    pieces: list[str] = []
    whole = taken(
        AnswerStream(MessageParts(pieces.append)),
        sse(
            start(), *block(0, "thinking", thinking=""), delta(0, "thinking_delta", thinking="hm"),
            *block(1, "text", text=""), {"type": "ping"}, delta(1, "text_delta", text="Hel"),
            delta(1, "text_delta", text="lo"), {"type": "content_block_stop", "index": 1},
            *block(2, "tool_use", id="t1", name="find", input={}),
            delta(2, "input_json_delta", partial_json=""),
            delta(2, "input_json_delta", partial_json='{"a": '),
            delta(2, "input_json_delta", partial_json="1}"), {"type": "new_kind"}, *END,
        ),
    )  # fmt: skip
    assert pieces == ["Hel", "lo"]
    assert [one.get("text") for one in whole["content"]] == [None, "Hello", None]
    assert whole["content"][2] == {"type": "tool_use", "id": "t1", "name": "find",
                                   "input": {"a": 1}}  # fmt: skip
    assert whole["usage"] == {"input_tokens": 5, "output_tokens": 9}
    assert (whole["model"], whole["stop_reason"]) == ("c", "end_turn")


@pytest.mark.parametrize(
    ("parts", "given"),
    [
        (["```", "json\n{}\n```"], []),
        ([" ", "`", "``\n{}"], []),
        (["{", '"a": 1}'], ["{", '"a": 1}']),
        ([" ", "`", "x"], [" `x"]),
    ],
)
def test_a_fence_around_json_is_never_handed_on(parts: list[str], given: list[str]) -> None:
    pieces: list[str] = []
    texts = [delta(0, "text_delta", text=part) for part in parts]
    raw = sse(start(), *block(0, "text", text=""), *texts, *END)
    taken(AnswerStream(MessageParts(pieces.append, json_only=True)), raw)
    assert pieces == given


def test_input_that_the_limit_of_tokens_cut_is_empty() -> None:
    opened = block(0, "tool_use", id="t", name="find", input={})
    cut = delta(0, "input_json_delta", partial_json='{"a"')
    whole = taken(AnswerStream(MessageParts(lambda _: None)), sse(start(), *opened, cut, *END))
    assert whole["content"][0]["input"] == {}


@pytest.mark.parametrize(("choices", "whole"), [(1, True), (2, False)])
def test_a_completion_has_ended_once_all_its_choices_have(choices: int, whole: bool) -> None:
    parts = ChatParts(lambda _: None, choices=choices)
    parts.take(chunk({"content": "a"}, "stop"))
    assert parts.ended is whole
    parts.take({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}]})
    assert parts.ended
    assert [one["message"]["content"] for one in parts.whole()["choices"]] == ["a", "b"]


HIGH, LOW = "\\ud83d", "\\ude00"  # as JSON writes the two halves of one character


def text_chunk(text: str) -> str:
    """One chunk of OpenAI's with this JSON text in it."""
    return f'{{"choices": [{{"index": 0, "delta": {{"content": "{text}"}}}}]}}'


@pytest.mark.parametrize(
    ("texts", "pieces"),
    [
        (["a" + HIGH, LOW + "b"], ["a", "😀b"]),
        ([HIGH, LOW], ["😀"]),
        ([HIGH, "", LOW + HIGH, LOW], ["😀", "😀"]),
        (["a" + HIGH, "b"], ["a", "\ufffdb"]),
        (["a", LOW + "b"], ["a", "\ufffdb"]),
        (["a" + HIGH], ["a", "\ufffd"]),
        ([HIGH + HIGH, LOW], ["\ufffd", "😀"]),
    ],
)
def test_halves_of_a_character_in_two_pieces_are_joined(
    texts: list[str], pieces: list[str]
) -> None:
    whole, handed_on = chat(*map(text_chunk, texts), chunk(finish="stop"), "[DONE]")
    assert handed_on == pieces
    assert whole["choices"][0]["message"]["content"] == "".join(pieces)


def test_halves_are_joined_in_what_nobody_reads_while_it_comes() -> None:
    def both(half: str) -> str:
        calls = f'[{{"index": 0, "function": {{"arguments": "{half}"}}}}]'
        delta = f'{{"reasoning_content": "{half}", "tool_calls": {calls}}}'
        return f'{{"choices": [{{"delta": {delta}}}]}}'

    whole, pieces = chat(
        both(HIGH),
        both(LOW),
        chunk(finish="tool_calls"),
    )
    message = whole["choices"][0]["message"]
    assert pieces == []
    assert message["reasoning_content"] == "😀"
    assert message["tool_calls"][0]["function"]["arguments"] == "😀"


def test_halves_in_anthropics_events_are_joined() -> None:
    def delta(place: int, inner: str) -> str:
        return f'{{"type": "content_block_delta", "index": {place}, "delta": {{{inner}}}}}'

    pieces: list[str] = []
    whole = taken(
        AnswerStream(MessageParts(pieces.append)),
        sse(
            {"type": "message_start", "message": {"role": "assistant"}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            delta(0, f'"type": "text_delta", "text": "a{HIGH}"'),
            delta(0, f'"type": "text_delta", "text": "{LOW}b"'),
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use"}},
            delta(1, f'"type": "input_json_delta", "partial_json": "{{\\"a\\": \\"{HIGH}"'),
            delta(1, f'"type": "input_json_delta", "partial_json": "{LOW}\\"}}"'),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
    )
    assert pieces == ["a", "😀b"]
    assert [block.get("text") for block in whole["content"]] == ["a😀b", None]
    assert whole["content"][1]["input"] == {"a": "😀"}


def read_in_pieces(parts: ChatParts | MessageParts, events: list[dict[str, Any]]) -> list[int]:
    """What the answer takes in memory after each event."""
    stream, sizes = AnswerStream(parts), []
    for event in events:
        stream.feed(b"data: " + orjson.dumps(event) + b"\n\n")
        sizes.append(stream.size)
    return sizes


def chat_delta(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def block_delta(**delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


@pytest.mark.parametrize(
    ("make", "event"),
    [
        (ChatParts, chat_delta(content="x" * 100)),
        (ChatParts, chat_delta(content=[{"type": "text", "text": "x" * 100}])),
        (ChatParts, chat_delta(audio={"data": "x" * 100})),
        (ChatParts, chat_delta(new=["x" * 100])),
        (ChatParts, chat_delta(tool_calls=[{"index": 0, "function": {"arguments": "x" * 100}}])),
        (MessageParts, block_delta(type="text_delta", text="x" * 100)),
        (MessageParts, block_delta(type="input_json_delta", partial_json="x" * 100)),
        (MessageParts, block_delta(type="citations_delta", citation={"a": "x" * 100})),
        (MessageParts, block_delta(type="newer", things=["x" * 100])),
    ],
)
def test_what_a_stream_takes_in_memory_grows_with_what_it_holds(
    make: Any, event: dict[str, Any]
) -> None:
    sizes = read_in_pieces(make(lambda _: None), [event] * 1001)
    grown = sizes[-1] - sizes[0]
    assert 1000 * 100 <= grown <= 1000 * 500


def test_what_is_replaced_takes_no_more_memory() -> None:
    event = {**chat_delta(), "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    sizes = read_in_pieces(ChatParts(lambda _: None), [event] * 100)
    assert sizes[-1] == sizes[0]


def test_an_event_that_has_not_ended_is_weighed_and_let_go_at_its_end() -> None:
    events = EventParser()
    assert events.feed(b"data: " + b"x" * 70_000) == []
    for _ in range(10):
        events.feed(b"[]," * 1000)
    assert events.size > 70_000 + 10 * 1000 * NODE
    assert len(events.feed(b"\n\n")) == 1
    assert events.size == 0


def test_a_text_of_many_pieces_is_whole() -> None:
    text, pieces = GrowingText("begin "), [f"{n} " for n in range(3 * TOGETHER + 1)]
    for piece in pieces:
        text.add(piece)
    assert text.whole() == "begin " + "".join(pieces) == text.whole()


def test_json_in_a_fence_is_not_streamed_and_whole_at_the_end() -> None:
    pieces: list[str] = []
    parts = MessageParts(pieces.append, json_only=True)
    events = [block_delta(type="text_delta", text=text) for text in (" `", "``json\n", '{"a":1}')]
    read_in_pieces(parts, [*events, block_delta(type="text_delta", text="\n```")])
    assert pieces == []
    assert parts.whole()["content"][0]["text"] == ' ```json\n{"a":1}\n```'
