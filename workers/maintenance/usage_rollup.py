"""Rolls up the usage of days that are over: at most one day in a round of maintenance."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from sqlalchemy import Engine

from headgate.shared.database.engine import snapshot
from headgate.shared.database.usage_rollup import DAY_MS, stale, sum_day

log = logging.getLogger("headgate.sums")

OVER_MS = 600_000
"""A day is rolled up this long after its end: the jobs of its last moments are recorded then."""

LOOK_BACK_DAYS = 3
"""Days whose audit lines are counted again each hour: a worker may write them late, after it has
waited for the database."""

HOUR_MS = 3_600_000
PAUSE_MS = 60_000


class UsageRollup:
    """Rolls up each day that is over, and again if audit lines came later.

    It looks at all days when a worker begins and when a day is over.
    """

    def __init__(self, engine: Engine, clock_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_ms = clock_ms
        self._stale_days: deque[int] = deque()
        self._day: int | None = None
        self._counted_ms = self._tried_ms = 0

    async def round(self) -> float:
        """Roll up one day, if one is stale. Returns how many seconds this took."""
        began = time.monotonic()
        now_ms = self._clock_ms()
        if not self._stale_days:
            await self._find_stale_days(now_ms)
        if self._stale_days and now_ms - self._tried_ms >= PAUSE_MS:
            day = self._stale_days.popleft()
            if not await asyncio.to_thread(sum_day, self._engine, day, now_ms):
                # The next look finds it again. Until then its usage is read from its audit lines.
                self._tried_ms = now_ms
                log.info("day %d (since 1970) is still changing; it is rolled up later", day)
        return time.monotonic() - began

    async def _find_stale_days(self, now_ms: int) -> None:
        today = (now_ms - OVER_MS) // DAY_MS
        if today == self._day and 0 <= now_ms - self._counted_ms < HOUR_MS:
            return
        first = today - LOOK_BACK_DAYS if today == self._day else 0
        days = await asyncio.to_thread(self._stale, first * DAY_MS, today * DAY_MS)
        self._stale_days.extend(days)
        self._day, self._counted_ms = today, now_ms

    def _stale(self, from_ms: int, until_ms: int) -> list[int]:
        with snapshot(self._engine) as connection:
            return stale(connection, from_ms, until_ms)
