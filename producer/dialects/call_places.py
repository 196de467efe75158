"""Tells the tool calls of a stream of chunks apart."""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, text_of


class CallPlaces:
    """The places of the calls of one choice, in the order in which they began."""

    def __init__(self) -> None:
        self._places: dict[int | None, int] = {}
        self._ids: list[str] = []

    def of(self, piece: Fields) -> int:
        """Return the place of the call that this is a piece of.

        Google numbers all calls of an answer 0; another id means another call.
        """
        index, call_id = piece.get("index"), text_of(piece.get("id"))
        number = index if isinstance(index, int) else None
        at = self._places.get(number)
        if at is None or (call_id and self._ids[at] not in ("", call_id)):
            at = self._places[number] = len(self._ids)
            self._ids.append("")
        self._ids[at] = self._ids[at] or call_id
        return at
