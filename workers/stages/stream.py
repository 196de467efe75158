"""Stream: write an answer for its readers while it is made: its text, and the vendor's events.

The result has all of the answer and is the last word. So a lost piece costs a reader only time, and
no job waits for a write.
"""

from __future__ import annotations

import asyncio

from redis.exceptions import NoScriptError

from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command
from headgate.shared.job.request import Dialect
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.provider import MadePart

GATHER_S = 0.05
"""The first piece is written at once, later ones at most this often."""

GATHER_EVENTS_S = 0.005
"""The same where events are read: programs show each token as it comes."""

KEEP_MS = 3_600_000

MOST_CHARS = 256 * 1024
"""So much text of one answer waits while Redis is slow or away. That is ten minutes of most models;
after more, readers get the rest from the result."""

MOST_EVENT_BYTES = 1024 * 1024
"""The same for a text with its events, which take ten times as much."""

EVENT_BYTES = 64
"""What an event that waits takes of memory besides its bytes."""

TOGETHER = 256
"""So many waiting pieces are joined: short texts take ten times their length of memory."""

ENTRY_BYTES = 32 * 1024
"""An entry takes no more events after so many bytes, so that readers can read a few at a time."""

STREAM_BYTES = 32 * 1024 * 1024
"""So much of one answer is written to Redis; readers get the rest from the result."""


class DeltaWriter:
    """Makes the streams of this worker's jobs."""

    def __init__(self, batcher: RedisBatcher, keys: Keys, *, gather_s: float = GATHER_S) -> None:
        self._batcher = batcher
        self._keys = keys
        self._gather_s = gather_s

    def of(self, job_id: str, fence: int, *, events: bool = False) -> DeltaStream:
        """Return what takes the pieces of a job under this claim. `events`: those, too."""
        gather_s = min(self._gather_s, GATHER_EVENTS_S) if events else self._gather_s
        return DeltaStream(self._batcher, self._keys, job_id, fence, gather_s, events=events)


class DeltaStream:
    """Takes each piece by a call. `begun`: one was delivered, and cannot be taken back.

    `made`: what was made of an answer that broke off.

    `wants_events`: whether it takes events. Then a text is written together with its event, and the
    head of the stream waits for the first event with a part of the answer.
    """

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, job_id: str, fence: int, gather_s: float,
        *, events: bool = False,
    ) -> None:  # fmt: skip
        self.begun = False
        self.wants_events = events
        self.made: MadePart | None = None
        self._batcher = batcher
        self._keys = keys
        self._job_id = job_id
        self._fence = fence
        self._gather_s = gather_s
        self._most = MOST_EVENT_BYTES if events else MOST_CHARS
        self._loop = asyncio.get_running_loop()
        self._texts: list[str] = []
        self._events: list[bytes] = []
        self._dialect: Dialect | None = None
        self._size = 0
        self._total = 0
        self._gave_up = False
        self._written = 0
        self._under_way = 0
        self._pause: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def size(self) -> int:
        """About how many bytes wait to be written; of texts alone, how many characters."""
        return self._size

    @property
    def waiting_pieces(self) -> int:
        """In how many pieces the text waits."""
        return len(self._texts)

    def text(self, text: str) -> None:
        """Write the piece of text now, or together with the next, or with its event."""
        self.begun = True
        if self._gave_up:
            return
        self._texts.append(text)
        if len(self._texts) >= TOGETHER:
            self._texts = ["".join(self._texts)]
        self._gather(len(text))
        if not self.wants_events and not self._is_busy:
            self._write()

    def event(self, event: bytes, *, dialect: Dialect, has_content: bool) -> None:
        """Write the event now, or together with the next. The head of a stream waits."""
        self.begun = self.begun or has_content
        if self._gave_up:
            return
        self._dialect = dialect
        self._events.append(event)
        self._gather(len(event) + EVENT_BYTES)
        if self.begun and not self._is_busy:
            self._write()

    def broke_off(self, made: MadePart) -> None:
        """Note what was made of the answer: no piece follows."""
        self.made = made

    def end(self) -> None:
        """Write what is gathered now: no piece follows.

        With events that is sent before the end of the job, so every reader finds the same events.
        """
        self._ended = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if not self._under_way or self.wants_events:
            self._write_all()

    @property
    def _is_busy(self) -> bool:
        """Whether the next piece has to wait: for the write before it, or for others."""
        return self._under_way > 0 or self._pause is not None

    def _gather(self, size: int) -> None:
        self._size += size
        if self._size > self._most:  # after a gap only the result may follow
            self._give_up()

    def _give_up(self) -> None:
        self._gave_up = True
        self._texts.clear()
        self._events.clear()
        self._size = 0

    def _write_all(self) -> None:
        while self._texts or self._events:
            self._write()

    def _write(self) -> None:
        """Write what is gathered, one write at a time: pieces grow where Redis is slow."""
        self._pause = None
        if not (self._texts or self._events):
            return
        text, events = "".join(self._texts), self._next_events()
        self._texts.clear()
        size = sum(len(event) + EVENT_BYTES for event in self._events)
        self._total += self._size - size
        self._size = size
        if self._total > STREAM_BYTES:
            self._give_up()
            return
        self._written += 1
        self._under_way += 1
        command = jobs.deliver(
            self._keys, self._job_id, fence=self._fence, n=self._written, text=text,
            events=b"\n".join(events), dialect=self._dialect, ttl_ms=KEEP_MS,
        )  # fmt: skip
        self._send(command, command.by_sha())

    def _next_events(self) -> list[bytes]:
        """Take the events of the next entry: all that wait, unless they are large."""
        size = 0
        for n, event in enumerate(self._events):
            size += len(event)
            if size > ENTRY_BYTES and n:
                taken, self._events = self._events[:n], self._events[n:]
                return taken
        taken, self._events = self._events, []
        return taken

    def _send(self, command: Command[int], words: tuple[script.Word, ...]) -> None:
        def answered(future: asyncio.Future[int]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, NoScriptError):
                self._send(command, command.by_text())
                return
            self._under_way -= 1
            if error is not None or future.cancelled() or future.result() < 0:
                self._give_up()  # after a gap only the result may follow
            elif self._ended:
                self._write_all()
            elif self._events and self._size > ENTRY_BYTES:
                self._write()
            elif not self._under_way:
                self._pause = self._loop.call_later(self._gather_s, self._write)

        self._batcher.send(*words).add_done_callback(answered)
