"""Stream: write the text of an answer for its readers while it is made.

The result has all of the text and is the last word. So a lost piece costs a reader only time, and
no job waits for a write.
"""

from __future__ import annotations

import asyncio

from redis.exceptions import NoScriptError

from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command
from headgate.workers.clients.redis_batcher import RedisBatcher

GATHER_S = 0.05
"""The first piece is written at once, later ones at most this often."""

KEEP_MS = 3_600_000

MOST_CHARS = 256 * 1024
"""So much text of one answer waits while Redis is slow or away. That is ten minutes of most models;
after more, readers get the rest from the result."""

TOGETHER = 256
"""So many waiting pieces are joined: short texts take ten times their length of memory."""


class DeltaWriter:
    """Makes the streams of this worker's jobs."""

    def __init__(self, batcher: RedisBatcher, keys: Keys, *, gather_s: float = GATHER_S) -> None:
        self._batcher = batcher
        self._keys = keys
        self._gather_s = gather_s

    def of(self, job_id: str, fence: int) -> DeltaStream:
        """Return what takes the pieces of a job under this claim."""
        return DeltaStream(self._batcher, self._keys, job_id, fence, self._gather_s)


class DeltaStream:
    """Takes each piece by a call. `begun`: one was delivered, and cannot be taken back."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, job_id: str, fence: int, gather_s: float
    ) -> None:
        self.begun = False
        self._batcher = batcher
        self._keys = keys
        self._job_id = job_id
        self._fence = fence
        self._gather_s = gather_s
        self._loop = asyncio.get_running_loop()
        self._gathered: list[str] = []
        self._chars = 0
        self._gave_up = False
        self._written = 0
        self._busy = False
        self._ended = False

    @property
    def waiting_chars(self) -> int:
        """How many characters wait to be written."""
        return self._chars

    @property
    def waiting_pieces(self) -> int:
        """In how many pieces they wait."""
        return len(self._gathered)

    def __call__(self, text: str) -> None:
        """Write the piece now, or together with the next."""
        self.begun = True
        if self._gave_up:
            return
        self._gathered.append(text)
        self._chars += len(text)
        if not self._busy:
            self._write()
        elif self._chars > MOST_CHARS:  # after a gap only the result may follow
            self._gave_up = True
            self._gathered.clear()
            self._chars = 0
        elif len(self._gathered) >= TOGETHER:
            self._gathered = ["".join(self._gathered)]

    def end(self) -> None:
        """Write what is gathered now: no piece follows."""
        self._ended = True
        if not self._busy:
            self._write()

    def _write(self) -> None:
        """Write what is gathered, one write at a time: pieces grow where Redis is slow."""
        self._busy = bool(self._gathered)
        if not self._busy:
            return
        text = "".join(self._gathered)
        self._gathered.clear()
        self._chars = 0
        self._written += 1
        command = jobs.deliver(
            self._keys, self._job_id, fence=self._fence, n=self._written, text=text, ttl_ms=KEEP_MS
        )
        self._send(command, command.by_sha())

    def _send(self, command: Command[int], words: tuple[script.Word, ...]) -> None:
        def answered(future: asyncio.Future[int]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, NoScriptError):
                self._send(command, command.by_text())
            elif error is None and not future.cancelled() and future.result() >= 0:
                if self._ended:
                    self._write()
                else:
                    self._loop.call_later(self._gather_s, self._write)
            # Else it stays busy for good: after a gap only the result may follow.

        self._batcher.send(*words).add_done_callback(answered)
