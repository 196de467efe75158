"""Reads OpenAI's chunks, pieces of text and Anthropic's events as the items of a response."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.producer.dialects.call_places import CallPlaces
from headgate.producer.dialects.event_writer import is_whole_json
from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.from_openai import called_in, reasoning_in, text_in
from headgate.producer.dialects.responses.item_writer import ItemWriter
from headgate.producer.dialects.responses.items import (
    ItemIds,
    call_item,
    flat_notes,
    logprob,
    message_item,
    reasoning_item,
)
from headgate.producer.dialects.responses.sent_item import SentItem

_ITEM_OF = {"output_text": "message", "refusal": "message", "reasoning_text": "reasoning"}


class TextItems:
    """Writes texts: an answer's, a refusal's and the reasoning's. `ids`: those of all items.

    An item closes when one of another kind begins.
    """

    def __init__(self, writer: ItemWriter, job_id: str) -> None:
        self.ids = ItemIds(job_id)
        self._writer = writer
        self._open: SentItem | None = None

    def say(self, kind: str, text: str, logged: list[Fields] | None = None) -> None:
        """Send a piece of text. `kind`: that of its part, such as `output_text`."""
        if not text:
            return
        item = self._open
        if item is None or item.kind != _ITEM_OF[kind]:
            self.close()
            item = self._open = self._writer.open(self._new(_ITEM_OF[kind]))
        if not item.parts or item.parts[-1].kind != kind:
            if item.parts:
                self._writer.close_part(item)
            self._writer.open_part(item, kind)
        self._writer.add(item, text, logged)

    def annotate(self, notes: list[Fields]) -> None:
        """Send annotations of the text that is open."""
        item = self._open
        if item is not None and item.parts and item.parts[-1].kind == "output_text":
            for note in notes:
                self._writer.annotate(item, note)

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._writer.close(self._open)
            self._open = None

    def _new(self, kind: str) -> Fields:
        made = self.ids.next(kind)
        return message_item(made, []) if kind == "message" else reasoning_item(made, "")


@dataclass(slots=True)
class _ChunkCall:
    """A call of a tool. `item`: what was sent of it; None until its name is known."""

    name: str = ""
    id: str = ""
    is_custom: bool = False
    item: SentItem | None = None
    pieces: list[str] = field(default_factory=list)


class ChunkItems:
    """The items of the first choice of a chat completion.

    They stay open until the next begins; the last is closed with the whole answer. A call whose
    arguments are not whole stays open beside others.
    """

    def __init__(self, writer: ItemWriter, texts: TextItems) -> None:
        self._writer = writer
        self._texts = texts
        self._places = CallPlaces()
        self._calls: list[_ChunkCall] = []

    def take(self, chunk: Fields) -> None:
        """Send the items and deltas of one chunk."""
        for choice in objects_of(chunk.get("choices")):
            if index_of(choice) == 0:
                self._take_delta(fields_of(choice.get("delta")), choice)

    def _take_delta(self, delta: Fields, choice: Fields) -> None:
        logged = objects_of(fields_of(choice.get("logprobs")).get("content"))
        self._texts.say("reasoning_text", reasoning_in(delta))
        text = text_in(delta.get("content"))
        self._texts.say("output_text", text, [logprob(one) for one in logged])
        self._texts.say("refusal", text_of(delta.get("refusal")))
        self._texts.annotate(flat_notes(objects_of(delta.get("annotations"))))
        for piece in objects_of(delta.get("tool_calls")):
            self._take_call(self._places.of(piece), piece)
        if called := fields_of(delta.get("function_call")):
            self._take_call(self._places.of({"index": -1}), {"function": called})

    def _take_call(self, at: int, piece: Fields) -> None:
        while at >= len(self._calls):
            self._calls.append(_ChunkCall())
        call = self._calls[at]
        name, written = called_in(piece)
        call.name = call.name or name
        call.id = call.id or text_of(piece.get("id"))
        call.is_custom = call.is_custom or "custom" in piece
        if written:
            call.pieces.append(written)
        if call.item is not None:
            if written and call.item.is_open:
                self._writer.add(call.item, written)
        elif call.name and all(before.item for before in self._calls[:at]):
            for waiting in self._calls[at:]:
                if not waiting.name:
                    break
                self._start(waiting)

    def _start(self, call: _ChunkCall) -> None:
        """Send the start of a call, and what is known of its arguments."""
        self._texts.close()
        for other in self._calls:
            if other.item is not None and is_whole_json("".join(other.pieces)):
                self._writer.close(other.item)
        form = "custom" if call.is_custom else "function"
        made = call_item({"id": call.id, form: {"name": call.name}}, self._texts.ids)
        call.item = self._writer.open(made)
        if call.pieces:
            self._writer.add(call.item, "".join(call.pieces))
