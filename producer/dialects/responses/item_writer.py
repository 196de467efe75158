"""Writes the events of a response's items, and knows what it has sent."""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.pieces import replayed
from headgate.producer.dialects.responses.items import written_field
from headgate.producer.dialects.responses.sent_item import CALLS, TEXT_FIELDS, SentItem, SentPart
from headgate.producer.dialects.server_event import ServerEvent, named_event
from headgate.producer.errors import StreamBroken

_DELTAS = {
    "output_text": "response.output_text",
    "refusal": "response.refusal",
    "reasoning_text": "response.reasoning_text",
    "function_call": "response.function_call_arguments",
    "custom_tool_call": "response.custom_tool_call_input",
}
"""The events of what grows by pieces, without `.delta` and `.done`."""


class ItemWriter:
    """The events of one job's answer. `number`: that of the next event; the first one has 0."""

    def __init__(self, job_id: str) -> None:
        self.number = 0
        self.items: list[SentItem] = []
        self._job_id = job_id
        self._by_place: dict[int, SentItem] = {}
        self._events: list[ServerEvent] = []

    def written(self) -> list[ServerEvent]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def send(self, kind: str, **fields: object) -> None:
        """Send an event of this kind."""
        self.pass_on({"type": kind, **fields})

    def pass_on(self, event: Fields) -> None:
        """Send an event with the next number."""
        numbered = {**event, "sequence_number": self.number}
        self.number += 1
        self._note(numbered)
        self._events.append(named_event(numbered))

    def _note(self, event: Fields) -> None:
        place = event.get("output_index")
        if not isinstance(place, int):
            return
        if event.get("type") == "response.output_item.added" and place not in self._by_place:
            item = self._by_place[place] = SentItem(place, fields_of(event.get("item")))
            self.items.append(item)
        elif (sent := self._by_place.get(place)) is not None:
            sent.note(event)

    def open(self, item: Fields) -> SentItem:
        """Send the start of an item, without what its deltas add."""
        place = len(self.items)
        self.send("response.output_item.added", output_index=place, item=_start_of(item))
        return self.items[-1]

    def open_part(self, sent: SentItem, kind: str) -> SentPart:
        """Send the start of a part of an item."""
        part = SentPart(kind)
        self._of_part("response.content_part.added", sent, len(sent.parts), part=part.as_part())
        return sent.parts[-1]

    def add(self, sent: SentItem, text: str, logged: list[Fields] | None = None) -> None:
        """Send a piece of the item's last part, or of a call's arguments."""
        if sent.kind in CALLS:
            self._of_item(f"{_DELTAS[sent.kind]}.delta", sent, delta=text)
            return
        at = len(sent.parts) - 1
        kind = sent.parts[at].kind
        more: Fields = {"logprobs": logged or []} if kind == "output_text" else {}
        self._of_part(f"{_DELTAS[kind]}.delta", sent, at, delta=text, **more)

    def annotate(self, sent: SentItem, note: Fields) -> None:
        """Send an annotation of the item's last part."""
        at = len(sent.parts) - 1
        index = len(sent.parts[at].noted)
        self._of_part(
            "response.output_text.annotation.added", sent, at,
            annotation_index=index, annotation=note,
        )  # fmt: skip

    def close_part(self, sent: SentItem, whole: Fields | None = None) -> None:
        """Send the end of the item's last part; `whole`: the part, None: as it was sent."""
        at = len(sent.parts) - 1
        part = sent.parts[at]
        if not part.is_open:
            return
        whole = whole or part.as_part()
        if part.kind in TEXT_FIELDS:
            name = TEXT_FIELDS[part.kind]
            is_text = part.kind == "output_text"
            more: Fields = {"logprobs": whole.get("logprobs") or []} if is_text else {}
            fields = {name: text_of(whole.get(name)), **more}
            self._of_part(f"{_DELTAS[part.kind]}.done", sent, at, **fields)
        self._of_part("response.content_part.done", sent, at, part=whole)

    def close(self, sent: SentItem, whole: Fields | None = None) -> None:
        """Send the end of an item, unless it was sent; `whole`: None: as it was sent."""
        if not sent.is_open:
            return
        if sent.parts:
            self.close_part(sent, objects_of((whole or {}).get("content"))[-1] if whole else None)
        whole = whole or _completed(sent.as_item())
        if sent.kind in CALLS:
            name = written_field(sent.kind)
            self._of_item(f"{_DELTAS[sent.kind]}.done", sent, **{name: whole[name]})
        self.send("response.output_item.done", output_index=sent.place, item=whole)

    def rest(self, items: list[Fields]) -> list[Fields]:
        """Send what is missing of these items, and return them in the order of the stream.

        Raises StreamBroken if what was sent is not their beginning.
        """
        whole: dict[int, Fields] = {}
        for n, item in enumerate(items):
            sent = self._sent(item, n)
            if sent is None:
                sent = self.open(item)
            if sent.place in whole:
                raise StreamBroken(self._job_id)
            whole[sent.place] = item
            self._finish(sent, item)
        if len(whole) != len(self.items):
            raise StreamBroken(self._job_id)
        return [whole[place] for place in sorted(whole)]

    def _sent(self, item: Fields, n: int) -> SentItem | None:
        """Return what was sent of this item: that of its id, or the one at its place."""
        named = (one for one in self.items if one.id and one.id == item.get("id"))
        if (found := next(named, None)) is not None:
            return found
        at = self._by_place.get(n)
        return at if at is not None and not at.id and at.kind == item.get("type") else None

    def _finish(self, sent: SentItem, item: Fields) -> None:
        if sent.kind in CALLS:
            left = sent.rest_of_call(item)
            if left is None:
                raise StreamBroken(self._job_id)
            if left:
                self.add(sent, left)
        elif sent.kind == "message" or sent.parts or sent.is_open:
            self._finish_parts(sent, objects_of(item.get("content")))
        self.close(sent, item)

    def _finish_parts(self, sent: SentItem, parts: list[Fields]) -> None:
        if len(sent.parts) > len(parts) or not (sent.is_open or len(sent.parts) == len(parts)):
            raise StreamBroken(self._job_id)
        for at, whole in enumerate(parts):
            kind = text_of(whole.get("type"))
            if at == len(sent.parts):
                self.open_part(sent, kind)
            part = sent.parts[at]
            left = part.rest(text_of(whole.get(TEXT_FIELDS.get(kind, ""))))
            if part.kind != kind or left is None:
                raise StreamBroken(self._job_id)
            if part.is_open:
                self._finish_part(sent, part, whole, left)

    def _finish_part(self, sent: SentItem, part: SentPart, whole: Fields, left: str) -> None:
        logged = objects_of(whole.get("logprobs"))[len(part.logged) :]
        for piece in replayed(left):
            self.add(sent, piece, logged)
            logged = []
        for note in objects_of(whole.get("annotations"))[len(part.noted) :]:
            self.annotate(sent, note)
        self.close_part(sent, whole)

    def _of_item(self, kind: str, sent: SentItem, **fields: object) -> None:
        self.send(kind, item_id=sent.id, output_index=sent.place, **fields)

    def _of_part(self, kind: str, sent: SentItem, at: int, **fields: object) -> None:
        self._of_item(kind, sent, content_index=at, **fields)


def _start_of(item: Fields) -> Fields:
    """Return an item as it stands in the event of its start."""
    kind = text_of(item.get("type"))
    start = {**item, "status": "in_progress"} if "status" in item else {**item}
    if kind in CALLS:
        return {**start, written_field(kind): ""}
    if kind in ("message", "reasoning"):
        start.pop("content", None)
        return {**start, "content": []} if kind == "message" else start
    return start


def _completed(item: Fields) -> Fields:
    return {**item, "status": "completed"} if "status" in item else item
