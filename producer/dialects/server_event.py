"""One event of a stream, as `text/event-stream` has it."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.producer.dialects.fields import Fields
from headgate.shared.job.encoding import dumps


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """`name`: the line `event:`, None without one. `data`: the line `data:`, in one line."""

    name: str | None
    data: bytes

    def encoded(self, number: int | None = None) -> bytes:
        """Return the event as bytes of the stream; `number`: its `id:`."""
        name = b"" if self.name is None else b"event: %b\n" % self.name.encode()
        place = b"" if number is None else b"id: %d\n" % number
        return b"%b%bdata: %b\n\n" % (name, place, self.data)


def chunk_event(chunk: Fields) -> ServerEvent:
    """Return an event of OpenAI's stream, which has no name."""
    return ServerEvent(None, dumps(chunk))


def named_event(event: Fields) -> ServerEvent:
    """Return an event of Anthropic's stream, whose name is its type."""
    return ServerEvent(str(event["type"]), dumps(event))
