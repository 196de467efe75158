"""Reads OpenAI's chunks as the blocks of a message of Anthropic's."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from headgate.producer.dialects.call_places import CallPlaces
from headgate.producer.dialects.event_writer import EventWriter, is_whole_json
from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.from_openai import (
    call_id,
    called_in,
    citation,
    reasoning_in,
    text_in,
    use_block,
)


@dataclass(slots=True)
class _ToolCall:
    """A call of a tool. `block`: its index; -1 until its name is known."""

    name: str = ""
    id: str = ""
    is_custom: bool = False
    block: int = -1
    pieces: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether no more arguments can follow."""
        return not self.is_custom and is_whole_json("".join(self.pieces))


class ChunkBlocks:
    """The blocks of the first choice. `finish`: why it ended.

    A block closes when the next begins. A call whose arguments are not whole stays open beside it:
    some servers send the pieces of several calls in turn.
    """

    def __init__(self, writer: EventWriter, job_id: str) -> None:
        self.finish: str | None = None
        self._writer = writer
        self._job_id = job_id
        self._text: list[str] = []
        self._text_block = -1
        self._open = -1
        self._places = CallPlaces()
        self._calls: list[_ToolCall] = []

    def take(self, chunk: Fields) -> None:
        """Send the blocks and deltas of one chunk."""
        for choice in objects_of(chunk.get("choices")):
            if index_of(choice) == 0 and self.finish is None:
                self._take_delta(fields_of(choice.get("delta")))
                if finish := text_of(choice.get("finish_reason")):
                    self._end(finish)

    def say(self, kind: str, text: str) -> None:
        """Send a piece of text or of thinking; `kind` says which."""
        if not text:
            return
        if self._open < 0 or self._writer.blocks[self._open].kind != kind:
            self._make_way()
            start = {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}
            self._open = self._writer.open_block(start)
            if kind == "text":
                self._text_block = self._open
        if kind == "text":
            self._text.append(text)
        self._writer.add(self._open, f"{kind}_delta", **{kind: text})

    def _take_delta(self, delta: Fields) -> None:
        self.say("thinking", reasoning_in(delta))
        self.say("text", text_in(delta.get("content")) + text_of(delta.get("refusal")))
        for piece in objects_of(delta.get("tool_calls")):
            self._take_call(self._places.of(piece), piece)
        if called := fields_of(delta.get("function_call")):
            self._take_call(self._places.of({"index": -1}), {"function": called})
        for note in objects_of(delta.get("annotations")):
            cited = citation(note, "".join(self._text))
            block = self._text_block
            if cited is not None and block >= 0 and self._writer.blocks[block].is_open:
                self._writer.add(block, "citations_delta", citation=cited)

    def _take_call(self, at: int, piece: Fields) -> None:
        while at >= len(self._calls):
            self._calls.append(_ToolCall())
        call = self._calls[at]
        name, written = called_in(piece)
        call.name = call.name or name
        call.id = call.id or text_of(piece.get("id"))
        call.is_custom = call.is_custom or "custom" in piece
        if call.block < 0:
            call.pieces.append(written)
            if call.name:
                self._start(at)
        elif written and self._writer.blocks[call.block].is_open:
            call.pieces.append(written)
            self._write(call, written)

    def _start(self, at: int) -> None:
        """Send the start of a call, and what is known of its arguments."""
        call = self._calls[at]
        self._make_way()
        name, made = call.name, call_id({"id": call.id}, self._job_id, at)
        start = use_block(made, name, {})
        call.block = self._writer.open_block(start)
        if call.is_custom:
            self._writer.add(call.block, "input_json_delta", partial_json='{"input":"')
        self._write(call, "".join(call.pieces))

    def _write(self, call: _ToolCall, text: str) -> None:
        if call.is_custom:
            text = orjson.dumps(text)[1:-1].decode()
        if text:
            self._writer.add(call.block, "input_json_delta", partial_json=text)

    def _make_way(self) -> None:
        """Close what is open, but for calls whose arguments are not whole."""
        if self._open >= 0:
            self._writer.close_block(self._open)
            self._open = -1
        for call in self._calls:
            if call.block >= 0 and call.is_whole:
                self._writer.close_block(call.block)

    def _end(self, finish: str) -> None:
        """Close all blocks: the choice is whole."""
        for at, call in enumerate(self._calls):
            if call.block < 0:
                self._start(at)
            if call.is_custom:
                self._writer.add(call.block, "input_json_delta", partial_json='"}')
        for index in range(len(self._writer.blocks)):
            self._writer.close_block(index)
        self.finish = finish
