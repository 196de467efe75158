"""Rolls up usage: days that are over, months that are over, and today so far.

A round of maintenance makes one of them at most, the days first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from sqlalchemy import Engine

from headgate.shared.database.engine import snapshot
from headgate.shared.database.usage_blocks import extend_part, stale_months, sum_month
from headgate.shared.database.usage_rollup import DAY_MS, day_number, day_of, stale, sum_day

log = logging.getLogger("headgate.sums")

OVER_MS = 600_000
"""A day is rolled up this long after its end: the jobs of its last moments are recorded then."""

LOOK_BACK_DAYS = 3
"""Days whose audit lines are counted again each hour: a worker may write them late, after it has
waited for the database."""

HOUR_MS = 3_600_000
PAUSE_MS = 60_000

LATE_MS = 30_000
"""Today is rolled up to this long ago. Lines that come later cost another reading of all of it."""

PART_LINES, PART_SHARE, PART_MS = 5_000, 0.02, 900_000
"""Today is rolled up once it has so many new lines, and so many more than before, or after so long
if it has any. All its lines are counted then, but only the new ones are read."""


class UsageRollup:
    """Rolls up each day and month that is over, and again if audit lines came later.

    It looks at all days when a worker begins and when a day is over.
    """

    def __init__(self, engine: Engine, clock_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_ms = clock_ms
        self._stale_days: deque[int] = deque()
        self._stale_months: deque[int] = deque()
        self._day: int | None = None
        self._counted_ms = self._tried_ms = 0
        self._extended_ms = self._looked_ms = 0

    async def round(self) -> float:
        """Roll up one day or month, if one is stale. Returns how many seconds this took."""
        began = time.monotonic()
        now_ms = self._clock_ms()
        if not self._stale_days:
            await self._find_stale_days(now_ms)
        if self._stale_days:
            await self._sum_day(now_ms)
        elif self._stale_months:
            await asyncio.to_thread(sum_month, self._engine, self._stale_months.popleft())
        elif not 0 <= now_ms - self._looked_ms < PAUSE_MS:
            self._looked_ms = now_ms
            await self._extend_part(now_ms)
        return time.monotonic() - began

    async def _sum_day(self, now_ms: int) -> None:
        if now_ms - self._tried_ms < PAUSE_MS:
            return
        day = self._stale_days.popleft()
        if not await asyncio.to_thread(sum_day, self._engine, day, now_ms):
            # The next look finds it again. Until then its usage is read from its audit lines.
            self._tried_ms = now_ms
            log.info("day %d is still changing; it is rolled up later", day)
        if not self._stale_days:
            await self._find_stale_months()

    async def _extend_part(self, now_ms: int) -> None:
        until_ms = now_ms - LATE_MS
        is_due = now_ms - self._extended_ms >= PART_MS
        least = (1, 0.0) if is_due else (PART_LINES, PART_SHARE)
        day = day_of(until_ms)
        if await asyncio.to_thread(extend_part, self._engine, day, until_ms, *least):
            self._extended_ms = now_ms

    async def _find_stale_days(self, now_ms: int) -> None:
        today = (now_ms - OVER_MS) // DAY_MS
        if today == self._day and 0 <= now_ms - self._counted_ms < HOUR_MS:
            return
        first = today - LOOK_BACK_DAYS if today == self._day else 0
        days = await asyncio.to_thread(self._stale, first * DAY_MS, today * DAY_MS)
        self._stale_days.extend(days)
        self._day, self._counted_ms = today, now_ms
        if not days:
            await self._find_stale_months()

    async def _find_stale_months(self) -> None:
        self._stale_months = deque(await asyncio.to_thread(self._months))

    def _stale(self, from_ms: int, until_ms: int) -> list[int]:
        with snapshot(self._engine) as connection:
            return stale(connection, from_ms, until_ms)

    def _months(self) -> list[int]:
        with snapshot(self._engine) as connection:
            return stale_months(connection, day_number(self._day or 0))
