"""Knows what was sent of one item of a streamed response."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.producer.dialects.fields import Fields, index_of, objects_of, text_of
from headgate.producer.dialects.pieces import is_same_json, rest_of_arguments, rest_of_text
from headgate.producer.dialects.responses.items import written_field

TEXT_FIELDS = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}
"""Parts that grow by pieces, and the field that grows."""

CALLS = ("function_call", "custom_tool_call")
"""Items whose arguments grow by pieces."""


@dataclass(slots=True)
class SentPart:
    """What was sent of a part of an item. `noted`: how many annotations."""

    kind: str
    pieces: list[str] = field(default_factory=list)
    noted: list[Fields] = field(default_factory=list)
    logged: list[Fields] = field(default_factory=list)
    is_open: bool = True

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    def rest(self, whole: str) -> str | None:
        """Return what is missing of the whole text; None if what was sent is another."""
        left = rest_of_text(self.text, whole)
        return left if self.is_open or left == "" else None

    def as_part(self) -> Fields:
        """Return the part as far as it was sent."""
        if self.kind == "output_text":
            return {
                "type": self.kind, "text": self.text,
                "annotations": self.noted, "logprobs": self.logged,
            }  # fmt: skip
        name = TEXT_FIELDS.get(self.kind)  # a newer kind has another form
        return {"type": self.kind, **({name: self.text} if name else {})}


@dataclass(slots=True)
class SentItem:
    """What was sent of an item. `pieces`: the arguments of a call."""

    place: int
    start: Fields
    parts: list[SentPart] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    is_open: bool = True

    @property
    def kind(self) -> str:
        """The item's type."""
        return text_of(self.start.get("type"))

    @property
    def id(self) -> str:
        """The item's id."""
        return text_of(self.start.get("id"))

    @property
    def written(self) -> str:
        """The arguments of a call so far."""
        return "".join(self.pieces)

    def note(self, event: Fields) -> None:
        """Take note of an event of this item."""
        kind = text_of(event.get("type")).removeprefix("response.")
        part = self._part(event)
        match kind:
            case "content_part.added":
                begun = event.get("part")
                name = text_of(begun.get("type")) if isinstance(begun, dict) else ""
                self.parts.append(SentPart(name))
            case "output_text.delta" | "refusal.delta" | "reasoning_text.delta" if part:
                part.pieces.append(text_of(event.get("delta")))
                part.logged += objects_of(event.get("logprobs"))
            case "output_text.annotation.added" if part:
                part.noted += objects_of([event.get("annotation")])
            case "content_part.done" if part:
                part.is_open = False
            case "function_call_arguments.delta" | "custom_tool_call_input.delta":
                self.pieces.append(text_of(event.get("delta")))
            case "output_item.done":
                self.is_open = False

    def _part(self, event: Fields) -> SentPart | None:
        at = index_of({"index": event.get("content_index")})
        return self.parts[at] if 0 <= at < len(self.parts) else None

    def rest_of_call(self, whole: Fields) -> str | None:
        """Return the missing arguments of a whole call; None if this is another call."""
        if any(self.start.get(name) != whole.get(name) for name in ("call_id", "name")):
            return None
        told = text_of(whole.get(written_field(self.kind)))
        if self.is_open:
            return rest_of_arguments(self.written, told)
        return "" if is_same_json(self.written, told) or self.written == told else None

    def as_item(self) -> Fields:
        """Return the item as far as it was sent."""
        if self.kind in CALLS:
            return {**self.start, written_field(self.kind): self.written}
        if self.parts:
            return {**self.start, "content": [part.as_part() for part in self.parts]}
        return self.start
