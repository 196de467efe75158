"""Puts a message together from Anthropic's events."""

from __future__ import annotations

from typing import Any

from headgate.shared.job.request import Dialect
from headgate.workers.provider import OnPiece
from headgate.workers.providers.lenient_json import PairedText, read_json, without_halves
from headgate.workers.providers.pieces import Fields, GrowingText, Pieces, place_of, size_of
from headgate.workers.providers.reading import NODE
from headgate.workers.providers.reply_fields import fields_of

#: The deltas that we know, with the field of the block that they are pieces of.
_GROWS = {"text_delta": "text", "thinking_delta": "thinking"}

FENCE = "```"

LONGEST_BEGIN = 1000
"""A text that begins with more blanks than this has no fence."""


class MessageParts:
    """A message in Anthropic's events. `json_only`: a code fence is no part of the answer."""

    dialect: Dialect = "anthropic"

    def __init__(self, on_piece: OnPiece, *, json_only: bool = False) -> None:
        self.ended = False
        self.is_last = False
        self.begun = False
        self._on_piece = PairedText(on_piece)
        self._pieces = Pieces()
        self._message: Fields = {}
        self._usage: Fields = {}
        self._blocks: dict[object, Fields] = {}
        self._inputs: dict[object, GrowingText] = {}
        self._held: str | None = "" if json_only else None
        self._is_fenced = False
        self._size = 0

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the message takes."""
        return self._size + self._pieces.size

    def take(self, event: dict[str, Any]) -> None:
        """Add the event to the message and hand its text on."""
        match event.get("type"):
            case "message_start":
                self._message = {**fields_of(event.get("message"))}
                self._size += size_of(self._message)
                self._count(self._message.get("usage"))
            case "content_block_start":
                self._start(place_of(event), fields_of(event.get("content_block")))
            case "content_block_delta":
                self._add(place_of(event), fields_of(event.get("delta")))
            case "message_delta":
                self._end(event)
            case "message_stop":
                self.ended = self.is_last = True

    def _start(self, place: object, block: Fields) -> None:
        self._blocks[place] = block
        self._size += size_of(block)
        self.begun = self.begun or _has_content(block)
        text = block.get("text")
        if block.get("type") == "text" and isinstance(text, str) and text:
            self._hand_on(text)
        served = fields_of(block.get("to")).get("model")
        if block.get("type") == "fallback" and served:  # from here another model answers
            self._message["model"] = served

    def _add(self, place: object, delta: Fields) -> None:
        """Add a delta to its block. One of a type that we do not know is merged field by field."""
        self.begun = True
        block = self._blocks.get(place)
        if block is None:
            block = self._blocks[place] = {}
            self._size += NODE
        kind = delta.get("type")
        match delta:
            case {"type": "text_delta" | "thinking_delta", **rest}:
                field = _GROWS[str(kind)]
                text = rest.get(field)
                if isinstance(text, str) and text:
                    self._pieces.grow(block, field, text)
                    if field == "text":
                        self._hand_on(text)
            case {"type": "input_json_delta", "partial_json": str(text)}:
                self._inputs.setdefault(place, GrowingText()).add(text)
                self._size += size_of(text)
            case {"type": "signature_delta", "signature": signature}:
                block["signature"] = signature
            case {"type": "citations_delta", "citation": citation}:
                self._pieces.merge(block, {"citations": [citation]})
            case _:
                new = {name: value for name, value in delta.items() if name != "type"}
                self._pieces.merge(block, new)

    def _end(self, event: Fields) -> None:
        """Take over what the end of the message says: stop reason, usage, and what is new."""
        for name, value in fields_of(event.get("delta")).items():
            self._pieces.replace(self._message, name, value)
        for name, value in event.items():
            if name not in ("type", "delta", "usage"):
                self._pieces.replace(self._message, name, value)
        self._count(event.get("usage"))
        self.ended = self.ended or bool(self._message.get("stop_reason"))

    def _hand_on(self, text: str) -> None:
        """Hand the text on, unless it is JSON in a code fence: that fence is removed at the end."""
        if self._is_fenced:
            return
        if self._held is not None:
            self._held += text
            start = self._held.lstrip()[:3]
            self._is_fenced = start == FENCE
            if self._is_fenced or (FENCE.startswith(start) and len(self._held) < LONGEST_BEGIN):
                return
            text, self._held = self._held, None
        self._on_piece(text)

    def _count(self, usage: object) -> None:
        """Take over these counts; they are cumulative, so the last ones count everything."""
        for name, value in fields_of(usage).items():
            self._pieces.replace(self._usage, name, value)

    def so_far(self) -> tuple[object, str]:
        """Return the usage that has come, and the texts of all kinds."""
        inputs = "".join(written.whole() for written in self._inputs.values())
        return self._usage, self._pieces.grown() + inputs

    def whole(self) -> dict[str, Any]:
        """Return the message as if it had come whole."""
        self._on_piece.end()
        self._pieces.settle()
        for place, written in self._inputs.items():
            if text := written.whole():
                self._blocks[place]["input"] = _input(text)
        content = [block for block in self._blocks.values() if block]
        return {**self._message, "content": content, "usage": self._usage}


def _has_content(block: Fields) -> bool:
    """Return whether a block that begins has more than its type and an empty text."""
    begins_empty = block.get("type") in ("text", "thinking")
    return not begins_empty or bool(block.get("text") or block.get("thinking"))


def _input(written: str) -> object:
    """Return the input of a tool call; an empty one if the token limit has cut it."""
    try:
        return read_json(without_halves(written).encode())
    except ValueError:
        return {}
