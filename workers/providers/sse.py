"""Parses server-sent events from bytes that come in any pieces (WHATWG HTML, section 9.2)."""

from __future__ import annotations

from headgate.workers.providers.reading import NODE, PLAIN, weight

Event = tuple[str, bytes]
"""The name, empty if there is none, and the data."""

_ENDS = (b"\n", b"\r")


class EventParser:
    """Parses one stream. Lines end in LF, CR or CRLF; a blank line ends an event.

    It works on bytes, so it never decodes half a character. `size`: about how much memory the
    event will take that has not ended yet.
    """

    def __init__(self) -> None:
        self.size = 0
        self._line = bytearray()
        self._after_cr = False
        self._first = True
        self._name = ""
        self._content: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that end in this piece."""
        if self._after_cr and chunk[:1] == b"\n":  # the second half of a CRLF
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk[-1:] == b"\r"
        lines = chunk.splitlines()
        if len(lines) == 1 and chunk[-1:] not in _ENDS:
            self._keep(chunk)
            return []
        if self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line.clear()
        rest = b"" if chunk[-1:] in _ENDS else lines.pop()
        events = self._read(lines)
        self._keep(rest)
        return events

    def _keep(self, rest: bytes) -> None:
        """Keep the beginning of a line that goes on in the next piece."""
        self._line += rest
        if rest:
            self.size += len(rest) if len(self._line) <= PLAIN else weight(rest)

    def rest(self) -> list[Event]:
        """Return a last event that has no blank line after it. It may be cut off in the middle."""
        lines, self._line = [bytes(self._line), b""], bytearray()
        return self._read(lines)

    def _read(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if self._first:
                line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
                self._first = False
            if not line:
                if self._content:
                    events.append((self._name, b"\n".join(self._content)))
                self._name, self._content, self.size = "", [], 0
                continue
            name, _, value = line.partition(b":")
            if name == b"data":
                self._content.append(value.removeprefix(b" "))
                self.size += NODE + len(value)
            elif name == b"event":
                self._name = value.removeprefix(b" ").decode("utf-8", "replace")
            # Comments (nothing before the colon), `id` and `retry` are not used.
        return events
