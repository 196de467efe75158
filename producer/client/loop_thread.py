"""An event loop in its own thread, in which all blocking callers of a client wait together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, TypeVar

from headgate.producer.client.pieces import TextPiece
from headgate.producer.client.text_stream import TextStream
from headgate.producer.client.waiters import Waiters
from headgate.shared.job.result import Result

T = TypeVar("T")

CLOSE_WITHIN_S = 5.0


class LoopThread:
    """A running loop with its waiters. A forked child does not have the thread: make a new one.

    `waiters` is awaited in the loop and returns the Waiters.
    """

    def __init__(self, waiters: Callable[[], Awaitable[Waiters]]) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="headgate-client", daemon=True
        )
        self._thread.start()

        async def make() -> Waiters:
            return await waiters()

        self._waiters = self._run(make())

    def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended; see `Waiters.ended`.

        An interrupt of the caller (KeyboardInterrupt) ends the wait, too.
        """
        return self._run(self._waiters.ended(job_id, timeout_s))

    def stream(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str = 0
    ) -> Iterator[TextPiece]:
        """Yield the pieces of the answer; closing the iterator stops the reading."""
        reading = TextStream(self._waiters, job_id, timeout_s, pulse_s, after)
        self._run(reading.open())
        try:
            while (piece := self._run(reading.next())) is not None:
                yield piece
        finally:
            with contextlib.suppress(RuntimeError):  # the loop ended before
                self._loop.call_soon_threadsafe(reading.close)

    def close(self) -> None:
        """End the thread; those who still wait get a RuntimeError."""
        with contextlib.suppress(NotInTime, CancelledError):
            asyncio.run_coroutine_threadsafe(self._waiters.close(), self._loop).result(
                CLOSE_WITHIN_S
            )
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_WITHIN_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("this client was closed while a caller waited") from None
        except BaseException:
            future.cancel()
            raise
