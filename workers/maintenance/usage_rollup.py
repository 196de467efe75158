"""UsageRollup of the days that are over, made by the worker that sweeps: one day in one round."""

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
"""How long a day is over before it is summed: what ended in its last moments is on record then."""

LOOK_BACK_DAYS = 3
"""Days whose lines are counted again each hour: a worker may have waited for the database."""

HOUR_MS = 3_600_000
PAUSE_MS = 60_000


class UsageRollup:
    """Sees to it that all days that are over are summed, and summed again where lines came later.

    All days are looked at when a worker begins and when a day is over.
    """

    def __init__(self, engine: Engine, clock_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_ms = clock_ms
        self._todo: deque[int] = deque()
        self._day: int | None = None
        self._counted_ms = self._tried_ms = 0

    async def round(self) -> float:
        """One day has been summed, if any had to be; how many seconds that took."""
        began = time.monotonic()
        now_ms = self._clock_ms()
        if not self._todo:
            await self._look(now_ms)
        if self._todo and now_ms - self._tried_ms >= PAUSE_MS:
            day = self._todo.popleft()
            if not await asyncio.to_thread(sum_day, self._engine, day, now_ms):
                # The next look finds it again; until then it is read from its lines.
                self._tried_ms = now_ms
                log.info("the day %d is summed later: it is still changing", day)
        return time.monotonic() - began

    async def _look(self, now_ms: int) -> None:
        today = (now_ms - OVER_MS) // DAY_MS
        if today == self._day and 0 <= now_ms - self._counted_ms < HOUR_MS:
            return
        first = today - LOOK_BACK_DAYS if today == self._day else 0
        self._todo.extend(await asyncio.to_thread(self._stale, first * DAY_MS, today * DAY_MS))
        self._day, self._counted_ms = today, now_ms

    def _stale(self, from_ms: int, until_ms: int) -> list[int]:
        with snapshot(self._engine) as connection:
            return stale(connection, from_ms, until_ms)
