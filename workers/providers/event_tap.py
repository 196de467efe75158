"""Hands the vendor's events on to those who read along, each as JSON in one line."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from headgate.shared.job.request import Dialect
from headgate.workers.provider import AnswerSink
from headgate.workers.providers.key_mask import masked_keys
from headgate.workers.providers.lenient_json import without_halves
from headgate.workers.providers.pieces import place_of
from headgate.workers.providers.reply_fields import storable

PING = "ping"
"""Anthropic's event that only keeps a connection open; each reader gets pings of its own."""

SHORTEST_SECRET = 16
"""Keys of local servers are shorter, and may be words that an answer has: they stay."""

Path = tuple[object, ...]


class _Begins(Protocol):
    """The parts of an answer: whose they are, and whether the answer has begun."""

    dialect: Dialect
    begun: bool


class EventTap:
    """Hands on the events of one stream. `key`: our API key, which no event may hold."""

    def __init__(self, sink: AnswerSink, parts: _Begins, key: str) -> None:
        self._sink = sink
        self._parts = parts
        self._secret = key
        self._key_bytes = key.encode() if len(key) >= SHORTEST_SECRET else b""
        self._paired = PairedEvents()

    def take(self, event: Any, content: bytes | None) -> None:
        """Hand on the event. `content`: its JSON as it came; None if that is no proper JSON."""
        if not isinstance(event, dict) or event.get("type") == PING:
            return
        if content is None or self._paired.waiting:
            line = orjson.dumps(self._paired.of(storable(event)))
        else:
            line = content.replace(b"\n", b" ") if b"\n" in content else content
        if self._key_bytes and self._key_bytes in line:
            line = masked_keys(line.decode(), self._secret).encode()
        self._sink.event(line, dialect=self._parts.dialect, has_content=self._parts.begun)


class PairedEvents:
    """Moves the first half of a surrogate pair to the text that the next event adds to it.

    Vendors may cut a text between the halves, and neither half alone is proper JSON.
    """

    def __init__(self) -> None:
        self.waiting: dict[Path, str] = {}

    def of(self, event: Any) -> Any:
        """Return the event with whole characters only."""
        return self._whole(event, ())

    def _whole(self, value: Any, path: Path) -> Any:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, list):
            return [self._whole(item, (*path, _place(item, n))) for n, item in enumerate(value)]
        if isinstance(value, dict):
            path = (*path, _place(value, None))
            return {
                without_halves(name): self._whole(item, (*path, name))
                for name, item in value.items()
            }
        return value

    def _text(self, text: str, path: Path) -> str:
        text = self.waiting.pop(path, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self.waiting[path] = text[-1]
            text = text[:-1]
        whole: str = without_halves(text)
        return whole


def _place(item: Any, otherwise: object) -> object:
    """Return which of several parts of an answer this is: its `index`, if it has one."""
    index = place_of(item) if isinstance(item, dict) else None
    return otherwise if index is None else index
