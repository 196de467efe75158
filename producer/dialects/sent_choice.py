"""Knows what was sent of one choice of a streamed completion, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from headgate.producer.dialects.call_places import CallPlaces
from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.from_openai import called_in
from headgate.producer.dialects.pieces import (
    is_same_json,
    replayed,
    rest_of_arguments,
    rest_of_text,
)
from headgate.producer.errors import StreamBroken

_OWN = ("index", "delta", "message", "logprobs", "finish_reason")
"""Fields of a choice and of its pieces that have a place of their own here."""

_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""Names of the reasoning, which comes before the answer."""

MOST_PIECES = 64
"""A text that was sent in more pieces is put together: a short piece takes five times its size."""


@dataclass(slots=True)
class SentCall:
    """What was sent of a call of a tool. `pieces`: its arguments."""

    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    def add(self, piece: Fields) -> None:
        """Take note of a piece that is sent."""
        name, written = called_in(piece)
        self.id = self.id or text_of(piece.get("id"))
        self.name = self.name or name
        self.pieces.append(written)

    def rest(self, call: Fields, *, is_whole: bool) -> str | None:
        """Return the missing arguments of the whole call; None if this is another call.

        `is_whole`: all of it was sent, perhaps with other blanks.
        """
        name, written = called_in(call)
        if self.id not in ("", text_of(call.get("id"))) or self.name not in ("", name):
            return None
        sent = "".join(self.pieces)
        return "" if is_whole and is_same_json(sent, written) else rest_of_arguments(sent, written)


class SentChoice:
    """What was sent of one choice. `closed`: the places of the calls that are whole."""

    def __init__(self, job_id: str) -> None:
        self.begun = False
        self.finished = False
        self.closed: set[int] = set()
        self._job_id = job_id
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, list[object]] = {}
        self._places = CallPlaces()
        self._calls: dict[int, SentCall] = {}
        self._logged: dict[str, int] = {}
        self._beside: dict[str, int] = {}

    @property
    def has_content(self) -> bool:
        """Whether a part of the answer was sent."""
        return bool(self._names())

    def add(self, choice: Fields) -> None:
        """Take note of a piece of the choice that is sent."""
        self.begun = True
        for name, value in fields_of(choice.get("delta")).items():
            if name == "tool_calls":
                for call in objects_of(value):
                    self._calls.setdefault(self._places.of(call), SentCall()).add(call)
            elif isinstance(value, str) and name != "role":
                pieces = self._texts.setdefault(name, [])
                pieces.append(value)
                if len(pieces) == MOST_PIECES:
                    pieces[:] = ["".join(pieces)]
            elif value and name != "role":
                self._others.setdefault(name, []).append(value)
        _count_items(self._logged, fields_of(choice.get("logprobs")))
        _count_items(self._beside, choice)
        self.finished = self.finished or bool(choice.get("finish_reason"))

    def _names(self) -> set[str]:
        """Return the names of the fields of the message of which something was sent."""
        names = {name for name, pieces in self._texts.items() if any(pieces)}
        return names | self._others.keys() | ({"tool_calls"} if self._calls else set())

    def rest(self, told: Fields) -> Iterator[Fields]:
        """Yield the deltas that are missing of the whole message.

        Raises StreamBroken if what was sent is not its beginning. Of a field that is neither text
        nor calls nobody knows whether more was to come, unless all of it was sent at once.
        """
        if not self._names() <= told.keys():
            raise StreamBroken(self._job_id)
        for name in sorted(told, key=lambda name: name not in _REASONING):
            value = told[name]
            if name == "tool_calls":
                yield from self._rest_of_calls(objects_of(value))
            elif name == "role":
                continue
            elif self._others.get(name, [value]) != [value]:
                raise StreamBroken(self._job_id)
            elif isinstance(value, str) or any(self._texts.get(name, ())):
                yield from self._rest_of_text(name, value)
            elif value is not None and name not in self._others:
                yield {name: value}

    def _rest_of_text(self, name: str, value: object) -> Iterator[Fields]:
        sent = "".join(self._texts.get(name, ()))
        left = rest_of_text(sent, value) if isinstance(value, str) else None
        if left is None:
            raise StreamBroken(self._job_id)
        if not left and name not in self._texts:
            yield {name: ""}
        yield from ({name: piece} for piece in replayed(left))

    def _rest_of_calls(self, calls: list[Fields]) -> Iterator[Fields]:
        if len(self._calls) > len(calls):
            raise StreamBroken(self._job_id)
        for at, call in enumerate(calls):
            kind = "custom" if "custom" in call else "function"
            argument = "input" if kind == "custom" else "arguments"
            if at not in self._calls:
                first = {**fields_of(call.get(kind)), argument: ""}
                yield {"tool_calls": [{"index": at, **call, kind: first}]}
            left = self._calls[at].rest(call, is_whole=at in self.closed)
            if left is None:
                raise StreamBroken(self._job_id)
            if left:
                yield {"tool_calls": [{"index": at, kind: {argument: left}}]}

    def rest_beside(self, choice: Fields) -> Fields:
        """Return what is missing of the fields beside the message: log probabilities and others."""
        logged = _not_counted(self._logged, fields_of(choice.get("logprobs")))
        more = {name: value for name, value in choice.items() if name not in _OWN}
        return {
            **_not_counted(self._beside, more),
            "logprobs": logged if any(logged.values()) else None,
        }


def _count_items(counts: dict[str, int], fields: Fields) -> None:
    """Add up the items of the lists among the fields; another value counts as one."""
    for name, value in fields.items():
        if value is not None and name not in _OWN:
            items = len(value) if isinstance(value, list) else 1
            counts[name] = counts.get(name, 0) + items


def _not_counted(counts: dict[str, int], fields: Fields) -> Fields:
    """Return the fields that were not counted, and of lists the items that were not."""
    return {
        name: value[counts.get(name, 0) :] if isinstance(value, list) else value
        for name, value in fields.items()
        if isinstance(value, list) or name not in counts
    }
