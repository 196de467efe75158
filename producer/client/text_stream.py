"""Reads one answer along while it is made, and the end of it from the job's result."""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from typing import Self

from headgate.producer.client.deltas import DeltaReader
from headgate.producer.client.waiters import Waiters
from headgate.producer.errors import JobTimeout, StreamBroken, answer_of
from headgate.shared.errors import InvalidRequest, Unreachable
from headgate.shared.job.result import Result

_PIECE = re.compile(r"\s*(?:\S{1,40}\s*){1,4}|\s+")
"""A few words, or as much of a longer one."""


def replayed(content: str) -> list[str]:
    """The text as it might have been streamed: in pieces of a few words."""
    return _PIECE.findall(content)


class TextStream:
    """One reader of one job's answer; of use in the event loop of the waiters only."""

    def __init__(
        self, waiters: Waiters, job_id: str, timeout_s: float | None, pulse_s: float | None
    ) -> None:
        self._waiters = waiters
        self._job_id = job_id
        self._timeout_s = timeout_s
        self._pulse_s = pulse_s
        self._until: float | None = None
        self._tail: DeltaReader | None = None
        self._ended: asyncio.Future[Result] | None = None
        self._given: list[str] = []
        self._claim = 0
        self._rest: deque[str] | None = None

    async def open(self) -> None:
        """What has ended is there to be replayed; the pieces of all else are followed.

        Raises UnknownJob, ResultExpired.
        """
        if self._timeout_s is not None:
            self._until = time.monotonic() + self._timeout_s
        try:
            self._end_with(await self._waiters.ended(self._job_id, 0))
        except (JobTimeout, Unreachable):
            tail = self._tail = self._waiters.tails.follow(self._job_id)
            self._ended = asyncio.ensure_future(self._waiters.ended(self._job_id))
            self._ended.add_done_callback(lambda _: tail.changed.set())

    async def next(self) -> str | None:
        """The next piece; an empty one where none came for `pulse_s`, None after the last."""
        while self._rest is None:
            tail, ended = self._tail, self._ended
            if tail is None or ended is None:
                return None
            tail.changed.clear()
            if self._given and tail.claims != self._claim:
                raise StreamBroken(self._job_id)
            if tail.pieces:
                self._claim = tail.claims
                self._given.append(tail.pieces.popleft())
                return self._given[-1]
            if ended.done():
                self._end_with(ended.result())
                break
            if not await self._more(tail):
                return ""
        return self._rest.popleft() if self._rest else None

    def close(self) -> None:
        """Nothing is followed any more."""
        if self._tail is not None:
            self._waiters.tails.leave(self._tail)
        if self._ended is not None and not self._ended.done():
            self._ended.cancel()
        elif self._ended is not None and not self._ended.cancelled():
            self._ended.exception()  # looked at, though nobody asked for it

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _more(self, tail: DeltaReader) -> bool:
        """True when there is something new, False after `pulse_s`; raises JobTimeout."""
        left_s = None if self._until is None else self._until - time.monotonic()
        waits = [one for one in (left_s, self._pulse_s) if one is not None]
        try:
            async with asyncio.timeout(min(waits) if waits else None):
                await tail.changed.wait()
            return True
        except TimeoutError:
            if self._until is not None and time.monotonic() >= self._until:
                raise JobTimeout(self._job_id, self._timeout_s or 0) from None
            return False

    def _end_with(self, result: Result) -> None:
        """What was not given yet is the rest; raises JobFailed, StreamBroken."""
        content = answer_of(result).content or ""
        if result.embeddings is not None:
            raise InvalidRequest("job", self._job_id, "embeddings have no text; ask for its result")
        given = "".join(self._given)
        if not content.startswith(given):
            raise StreamBroken(self._job_id)
        self._rest = deque(replayed(content[len(given) :]))
