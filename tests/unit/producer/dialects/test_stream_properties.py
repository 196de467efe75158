"""Any answer, cut into any events and broken off anywhere, is streamed as it is answered whole."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.dialects.streams import EventKind
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
from tests.unit.producer.dialects.answers import result_of
from tests.unit.producer.dialects.streaming import differences, lines_of, stream_for, streamed

TEXTS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12),
    max_size=4,
)
"""A text in pieces."""

INPUTS = st.dictionaries(st.sampled_from("ab"), st.integers(0, 9) | st.text(max_size=4), max_size=2)
DIALECTS: st.SearchStrategy[Dialect] = st.sampled_from(["openai", "anthropic"])


@dataclass(frozen=True)
class Answered:
    """What a model answers: reasoning and text in pieces, and the inputs of calls."""

    reasoning: list[str]
    said: list[str]
    inputs: list[dict[str, Any]]
    spaced: bool
    name: str

    @property
    def written(self) -> list[str]:
        """The arguments of the calls, as this model writes them."""
        if self.spaced:
            return [json.dumps(one, ensure_ascii=False, indent=1) for one in self.inputs]
        return [orjson.dumps(one).decode() for one in self.inputs]


ANSWERED = st.builds(
    Answered, TEXTS, TEXTS,
    st.lists(INPUTS, max_size=3), st.booleans(),
    st.sampled_from("fg"),
)  # fmt: skip


def by_openai(answered: Answered, cut: int) -> VendorAnswer:
    """Return the answer as a server of OpenAI's dialect streams it."""
    calls = [
        {
            "id": f"c{n}",
            "type": "function",
            "function": {"name": f"{answered.name}{n}", "arguments": written},
        }
        for n, written in enumerate(answered.written)
    ]
    content = "".join(answered.said) or (None if calls else "")
    told: Fields = {"content": content}
    if answered.reasoning:
        told["reasoning_content"] = "".join(answered.reasoning)
    if calls:
        told["tool_calls"] = calls
    finish = "tool_calls" if calls else "stop"
    events = [chunk({"role": "assistant", "content": content and ""})]
    events += [chunk({"reasoning_content": piece}) for piece in answered.reasoning]
    events += [chunk({"content": piece}) for piece in answered.said]
    for n, call in enumerate(calls):
        begun = {**call, "index": n, "function": {"name": f"{answered.name}{n}", "arguments": ""}}
        events.append(chunk({"tool_calls": [begun]}))
        events += [
            chunk({"tool_calls": [{"index": n, "function": {"arguments": piece}}]})
            for piece in cut_at(answered.written[n], cut)
        ]
    body = completion(choice(told, finish))
    return VendorAnswer("any", "openai", body, [*events, *ending(finish)], content, finish)


def by_anthropic(answered: Answered, cut: int) -> VendorAnswer:
    """Return the answer as Anthropic streams it."""
    blocks: list[Fields] = []
    parts: list[list[Fields]] = []
    for kind, pieces in (("thinking", answered.reasoning), ("text", answered.said)):
        if pieces:
            signed = {"signature": "sig"} if kind == "thinking" else {}
            blocks.append({"type": kind, kind: "".join(pieces), **signed})
            start = {"type": kind, kind: "", **({"signature": ""} if signed else {})}
            deltas = [delta(f"{kind}_delta", **{kind: piece}) for piece in pieces]
            parts.append(
                [start, *deltas, *([delta("signature_delta", **signed)] if signed else [])]
            )
    for n, (given_, written) in enumerate(zip(answered.inputs, answered.written, strict=True)):
        block = {"type": "tool_use", "id": f"t{n}", "name": f"{answered.name}{n}", "input": given_}
        blocks.append(block)
        pieces = cut_at(written, cut) if given_ else [""]
        parts.append(
            [{**block, "input": {}}, *(delta("input_json_delta", partial_json=p) for p in pieces)]
        )
    whole = message(blocks, "tool_use" if answered.inputs else "end_turn")
    text = "".join(answered.said)
    finish = "tool_calls" if answered.inputs else "stop"
    content = text if text or not answered.inputs else None
    return VendorAnswer("any", "anthropic", whole, message_events(whole, *parts), content, finish)


def cut_at(text: str, at: int) -> list[str]:
    return [piece for piece in (text[:at], text[at:]) if piece]


@given(ANSWERED, st.integers(0, 9), DIALECTS, DIALECTS)
def test_any_answer_is_streamed_as_it_is_answered(
    answered: Answered, cut: int, vendor: Dialect, caller: Dialect
) -> None:
    sent = (by_openai if vendor == "openai" else by_anthropic)(answered, cut)
    assert differences(caller, streamed(caller, lines_of(sent), result_of(sent)), sent) == []
    assert differences(caller, streamed(caller, [], result_of(sent)), sent) == []


@given(ANSWERED, st.integers(0, 9), DIALECTS, DIALECTS, st.integers(0, 30))
def test_any_stream_that_breaks_off_is_ended_from_the_result(
    answered: Answered, cut: int, vendor: Dialect, caller: Dialect, at: int
) -> None:
    sent = (by_openai if vendor == "openai" else by_anthropic)(answered, cut)
    events = streamed(caller, lines_of(sent)[:at], result_of(sent))
    assert differences(caller, events, sent) == []


@given(ANSWERED, st.integers(0, 9), DIALECTS, DIALECTS, st.lists(st.integers(0, 30), max_size=5))
def test_the_same_events_have_the_same_numbers_however_they_come(
    answered: Answered, cut: int, vendor: EventKind, caller: Dialect, entries: list[int]
) -> None:
    sent = (by_openai if vendor == "openai" else by_anthropic)(answered, cut)
    lines = lines_of(sent)
    once = streamed(caller, lines, result_of(sent))
    again, stream = [], stream_for(caller)
    places = [0, *sorted(entries), len(lines)]
    for start, end in itertools.pairwise(places):
        entry = b"\n".join(line for _, line in lines[start:end])
        again += [
            event for line in entry.split(b"\n") if line for event in stream.take(vendor, line)
        ]
    assert again + stream.end(result_of(sent)) == once


@given(ANSWERED, ANSWERED, DIALECTS, DIALECTS, st.integers(1, 8))
def test_a_stream_never_joins_two_answers(
    first: Answered, second: Answered, vendor: Dialect, caller: Dialect, at: int
) -> None:
    make = by_openai if vendor == "openai" else by_anthropic
    begun, sent = make(first, 2), make(second, 2)
    lines = lines_of(begun)
    try:
        events = streamed(caller, lines[: min(at, len(lines) - 3)], result_of(sent))
    except StreamBroken:
        return
    assert differences(caller, events, sent) == []
