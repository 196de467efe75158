"""Events of a gateway's `text/event-stream`, taken apart as they come."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple


class ReadEvent(NamedTuple):
    """One event: its name, its id (empty without one) and its data in one line."""

    name: str
    id: str
    data: bytes


async def events_in(chunks: AsyncIterable[bytes]) -> AsyncIterator[ReadEvent]:
    """Yield the events in these bytes, however they are cut; comments are left out."""
    buffer = bytearray()
    searched = 0
    async for chunk in chunks:
        buffer += chunk
        while (end := buffer.find(b"\n\n", searched)) >= 0:
            block = bytes(buffer[:end])
            del buffer[: end + 2]
            searched = 0
            if (event := _event_of(block)) is not None:
                yield event
        searched = max(0, len(buffer) - 1)


def _event_of(block: bytes) -> ReadEvent | None:
    fields = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b": ")
        fields[name] = value
    if b"data" not in fields:
        return None
    name, place = fields.get(b"event", b"message"), fields.get(b"id", b"")
    return ReadEvent(name.decode(), place.decode(), fields[b"data"])
