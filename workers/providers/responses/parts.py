"""Puts a Response together from OpenAI's events. The last event brings it whole."""

from __future__ import annotations

from typing import Any

from headgate.shared.job.request import Dialect
from headgate.workers.provider import OnPiece
from headgate.workers.providers.lenient_json import PairedText
from headgate.workers.providers.pieces import Fields, GrowingText, size_of
from headgate.workers.providers.reading import NODE
from headgate.workers.providers.reply_fields import fields_of

HEAD = frozenset({
    "response.queued", "response.created", "response.in_progress", "response.output_item.added",
    "response.content_part.added", "response.reasoning_summary_part.added",
    "keepalive",
})  # fmt: skip
"""Events that may come before a part of the answer has been made."""

LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})

TEXT = "response.output_text.delta"


class ResponseParts:
    """A Response in OpenAI's events."""

    dialect: Dialect = "responses"

    def __init__(self, on_piece: OnPiece) -> None:
        self.ended = False
        self.is_last = False
        self.begun = False
        self._on_piece = PairedText(on_piece)
        self._response: Fields = {}
        self._items: dict[int, Fields] = {}
        self._made = GrowingText()
        self._size = 0

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the Response takes."""
        return self._size

    def take(self, event: dict[str, Any]) -> None:
        """Take the event, and hand its text on."""
        kind = str(event.get("type"))
        self.begun = self.begun or kind not in HEAD
        if isinstance(response := event.get("response"), dict):
            self._size += size_of(response)
            self._response = response
        if kind in LAST:
            self.ended = self.is_last = True
        elif kind.endswith(".delta") and isinstance(delta := event.get("delta"), str):
            self._size += size_of(delta)
            self._made.add(delta)
            if kind == TEXT:
                self._on_piece(delta)
        elif kind == "response.output_item.done":
            self._take_item(event)

    def _take_item(self, event: Fields) -> None:
        """Keep a finished item: some servers leave the items out of their last event."""
        place, item = event.get("output_index"), fields_of(event.get("item"))
        if isinstance(place, int) and item:
            self._items[place] = item
            self._size += NODE + size_of(item)

    def so_far(self) -> tuple[object, str]:
        """Return the usage that has come, and the texts of all kinds."""
        return self._response.get("usage"), self._made.whole()

    def whole(self) -> dict[str, Any]:
        """Return the Response as if it had come whole."""
        self._on_piece.end()
        if self._items and not self._response.get("output"):
            self._response["output"] = [item for _, item in sorted(self._items.items())]
        return self._response
