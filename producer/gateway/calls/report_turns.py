"""Reads reports, one at a time, each in a thread: some read all keys of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class ReportTurns:
    """Takes turns. A report whose caller has gone keeps its turn until its thread has ended.

    So reports that nobody awaits any more, as of a database that hangs, never fill the threads
    that all calls share. Use it in one event loop.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._reading: set[asyncio.Future[Any]] = set()

    async def read(self, report: Callable[[], T]) -> T:
        """Return the report."""
        await self._turn.acquire()
        reading = asyncio.ensure_future(asyncio.to_thread(report))
        self._reading.add(reading)
        reading.add_done_callback(self._ended)
        return await asyncio.shield(reading)

    def _ended(self, reading: asyncio.Future[Any]) -> None:
        self._reading.discard(reading)
        self._turn.release()
        if not reading.cancelled():
            reading.exception()  # retrieved, so that asyncio does not log it as forgotten
