"""An event loop in its own thread, in which all blocking callers of a client wait together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotInTime
from typing import Any, TypeAlias, TypeVar

from headgate.producer.client.pieces import TextPiece
from headgate.producer.client.transport import AnswerPieces

T = TypeVar("T")

Work: TypeAlias = Coroutine[Any, Any, T]

CLOSE_WITHIN_S = 5.0

CLOSED = "this client is closed; make a new one"
CLOSED_MEANWHILE = "this client was closed while a caller waited"


class LoopThread:
    """A loop that runs in a thread of this process, from the first use until it is closed.

    A forked child does not have the thread, so it starts one of its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _RunningLoop | None = None
        self._of_parents: list[_RunningLoop | None] = []
        self._is_closed = False
        self._pid = os.getpid()

    def run(self, work: Work[T]) -> T:
        """Return what `work` returns in the loop.

        An interrupt of the caller (KeyboardInterrupt) ends the work, too.
        """
        return self._started(work).run(work)

    def iterate(self, begin: Callable[[], Work[AnswerPieces]]) -> Iterator[TextPiece]:
        """Yield the pieces of an answer; closing the iterator stops the reading."""
        opening = begin()
        running = self._started(opening)
        pieces = running.run(opening)
        try:
            while (piece := running.run(pieces.next())) is not None:
                yield piece
        finally:
            running.call(pieces.close)

    def call(self, function: Callable[[], None]) -> None:
        """Call it in the loop soon, without waiting for that; do nothing if no loop runs."""
        running = self._running
        if running is not None:
            running.call(function)

    def close(self, closing: Work[None]) -> None:
        """Await `closing` in the loop and end the thread; who still waits gets a RuntimeError."""
        self._reset_after_fork()
        with self._lock:
            running, self._running, self._is_closed = self._running, None, True
        if running is None:
            closing.close()
        else:
            running.close(closing)

    def _started(self, work: Work[Any]) -> _RunningLoop:
        self._reset_after_fork()
        with self._lock:
            if self._is_closed:
                work.close()
                raise RuntimeError(CLOSED)
            if self._running is None:
                self._running = running = _RunningLoop()
                # A client that nobody closes ends its thread when it is collected as garbage. At
                # the exit of the program those that are left are closed in order.
                weakref.finalize(self, running.end_soon).atexit = False
            return self._running

    def _reset_after_fork(self) -> None:
        # The thread is the parent's, and so is the lock, which may be held. The loop is kept: what
        # its end would close is still in use in the parent.
        if self._pid != os.getpid():
            self._of_parents.append(self._running)
            self._running, self._lock, self._pid = None, threading.Lock(), os.getpid()


class _RunningLoop:
    """A running loop and its thread."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="headgate-client", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def run(self, work: Work[T]) -> T:
        """Return what `work` returns in the loop."""
        if self._pid != os.getpid():
            work.close()
            raise RuntimeError("this stream was opened before the fork; stream again")
        with self._lock:
            if self._is_closed:
                work.close()
                raise RuntimeError(CLOSED_MEANWHILE)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError(CLOSED_MEANWHILE) from None
        except BaseException:
            future.cancel()
            raise

    def call(self, function: Callable[[], None]) -> None:
        """Call it in the loop soon, unless the loop has ended."""
        if self._pid == os.getpid():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(function)

    def close(self, closing: Work[None]) -> None:
        """Await `closing`, cancel what still runs, and end the thread."""
        with self._lock:
            self._is_closed = True
        try:
            with contextlib.suppress(NotInTime, CancelledError):
                ending = asyncio.run_coroutine_threadsafe(_end_all(closing), self._loop)
                ending.result(CLOSE_WITHIN_S)
        finally:
            self.call(self._loop.stop)
            self._thread.join(CLOSE_WITHIN_S)

    def end_soon(self) -> None:
        """Cancel what runs, and end the thread, without waiting for that."""

        def end() -> None:
            ending = self._loop.create_task(_end_all(_nothing()))
            ending.add_done_callback(lambda _: self._loop.stop())

        self.call(end)


async def _nothing() -> None:
    """Do nothing."""


async def _end_all(closing: Work[None]) -> None:
    """Await `closing`; cancel all other tasks of the loop, and wait for their ends."""
    await closing
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
