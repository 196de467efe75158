"""A sink that keeps the pieces of an answer as they come."""

from headgate.shared.job.request import Dialect
from headgate.workers.provider import MadePart


class RecordingSink:
    """Keeps texts and events. `heads`: the events before the first part of the answer."""

    size = 0

    def __init__(self, *, events: bool = False) -> None:
        self.wants_events = events
        self.texts: list[str] = []
        self.heads: list[bytes] = []
        self.events: list[bytes] = []
        self.made: list[MadePart] = []
        self.dialects: set[Dialect] = set()

    def text(self, text: str) -> None:
        """Keep the text."""
        self.texts.append(text)

    def broke_off(self, made: MadePart) -> None:
        """Keep what was made."""
        self.made.append(made)

    def event(self, event: bytes, *, dialect: Dialect, has_content: bool) -> None:
        """Keep the event."""
        (self.events if has_content else self.heads).append(event)
        self.dialects.add(dialect)
