"""Read the text of one answer while it is made, and its end from the job's result."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Self

from headgate.producer.client.arguments import require_seconds
from headgate.producer.client.delta_reader import DeltaReader
from headgate.producer.client.pieces import PieceCutter, TextPiece
from headgate.producer.client.waiters import Waiters
from headgate.producer.dialects.pieces import replayed
from headgate.producer.errors import StreamBroken, answer_of
from headgate.shared.errors import InvalidRequest, Unreachable
from headgate.shared.job.result import Result


class TextStream:
    """One reader of one job's answer. Use it in the event loop of its waiters only.

    `timeout_s`: how long the whole stream may take. `pulse_s`: after how many seconds without a
    piece `next` returns an empty one. Both may be None. `after`: how much of the answer the reader
    has already, as characters or as the `after` of a piece. `result`: the end of the job, however
    it ended, once the stream has come to it.
    """

    def __init__(
        self,
        waiters: Waiters,
        job_id: str,
        timeout_s: float | None,
        pulse_s: float | None,
        after: int | str = 0,
    ) -> None:
        require_seconds("timeout_s", timeout_s)
        require_seconds("pulse_s", pulse_s)
        self.result: Result | None = None
        self._waiters = waiters
        self._job_id = job_id
        self._timeout_s = timeout_s
        self._pulse_s = pulse_s
        self._until: float | None = None
        self._reader: DeltaReader | None = None
        self._ended: asyncio.Future[Result] | None = None
        self._cutter = PieceCutter(after)
        self._streamed: list[str] = []
        self._claim = 0
        self._rest: deque[str] | None = None

    async def open(self) -> None:
        """Take the whole answer if the job has ended, else begin to read its pieces.

        Raises UnknownJob, ResultExpired and JobFailed.
        """
        if self._timeout_s is not None:
            self._until = time.monotonic() + self._timeout_s
        found = None
        with suppress(Unreachable):
            found = await self._waiters.ended_already(self._job_id)
        if found is not None:
            self._end_with(found)
            return
        reader = self._reader = self._waiters.deltas.open(self._job_id)
        self._ended = asyncio.ensure_future(self._waiters.ended(self._job_id))
        self._ended.add_done_callback(lambda _: reader.changed.set())

    async def next(self) -> TextPiece | None:
        """Return the next piece, "" if none came for `pulse_s`, None after the last.

        Raises JobFailed, StreamBroken, JobTimeout, and what waiting for the result raises.
        """
        while self._rest is None:
            reader, ended = self._reader, self._ended
            if reader is None or ended is None:
                return None
            reader.changed.clear()
            if self._streamed and reader.claims != self._claim:
                raise StreamBroken(self._job_id)
            if (fields := reader.take()) is not None:
                self._claim = reader.claims
                if text := fields[b"d"].decode():
                    self._streamed.append(text)
                    if (piece := self._cut(text)) is not None:
                        return piece
                continue
            if ended.done():
                self._end_with(ended.result())
                break
            if not await self._wait_for_more(reader):
                return TextPiece("", self._cutter.place)
        while self._rest:
            if (piece := self._cut(self._rest.popleft())) is not None:
                return piece
        if self._cutter.is_behind:  # the reader has more than the answer has
            raise StreamBroken(self._job_id)
        return None

    def close(self) -> None:
        """Stop reading."""
        self._waiters.stop_reading(self._reader, self._ended)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _cut(self, text: str) -> TextPiece | None:
        """Return what is new of the next part of the answer; raise StreamBroken."""
        try:
            return self._cutter.cut(text)
        except ValueError:
            raise StreamBroken(self._job_id) from None

    async def _wait_for_more(self, reader: DeltaReader) -> bool:
        """Return True when there is something new, False after `pulse_s`; raise JobTimeout."""
        left_s = None if self._until is None else self._until - time.monotonic()
        waits = [one for one in (left_s, self._pulse_s) if one is not None]
        try:
            async with asyncio.timeout(min(waits) if waits else None):
                await reader.changed.wait()
            return True
        except TimeoutError:
            if self._until is None or time.monotonic() < self._until:
                return False
            # It may have ended at this very moment: then the rest of the answer is there.
            self._end_with(await self._waiters.end_now(self._job_id, self._timeout_s or 0))
            return True

    def _end_with(self, result: Result) -> None:
        """Keep the part of the answer that was not streamed; raise JobFailed, StreamBroken."""
        self.result = result
        content = answer_of(result).content or ""
        if result.embeddings is not None:
            raise InvalidRequest("job", self._job_id, "embeddings have no text; ask for its result")
        streamed = "".join(self._streamed)
        if not content.startswith(streamed):
            raise StreamBroken(self._job_id)
        self._rest = deque(replayed(content[len(streamed) :]))
