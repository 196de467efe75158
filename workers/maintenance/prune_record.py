"""Prunes the database: one worker at a time deletes what is kept no longer, a little at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import lost_a_race, passes
from headgate.shared.database.prune import Pruned, Step, cutoffs, prune
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.shared.job.ids import now_ms
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.prune")

LOOK_S = 10.0
"""How often a worker looks whether it has the turn and a pass is due."""

EVERY_S = 3600.0
"""The time between the end of a pass and the next one."""

ROUND_S = 5.0
"""How long a worker prunes before it looks again whether it still has the turn."""


@dataclass
class RecordPrune:
    """Deletes jobs and audit lines that are older than so many days; 0 keeps them for ever.

    `owner`: this worker's name; it prunes while it has the turn for maintenance.
    """

    batcher: RedisBatcher
    keys: Keys
    engine: Engine
    owner: str
    clock_ms: Callable[[], int]
    keep_days: int
    keep_audit_days: int
    look_s: float = LOOK_S
    round_s: float = ROUND_S
    _pass: Iterator[Step] | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _next_at: float = 0.0

    async def keep(self) -> None:
        """Do a pass each hour, while this worker has the turn, until cancelled."""
        outage_log = OutageLog(log, "the database of pruning", "nothing is deleted")
        while self.keep_days:
            await asyncio.sleep(0 if self._pass else self.look_s)
            try:
                if time.monotonic() < self._next_at:
                    continue
                if await self.batcher.send("GET", self.keys.sweeper()) == self.owner.encode():
                    await self.round()
                outage_log.answered()
            except DBAPIError as error:
                if passes(error) and not lost_a_race(error):
                    outage_log.failed(error.orig or error)
                elif not lost_a_race(error):
                    log.exception("the record was not pruned; trying again")
            except RedisError as error:
                outage_log.failed(error)
            except Exception:
                log.exception("the record was not pruned; trying again")

    async def round(self) -> bool:
        """Delete for about `round_s`; return whether the pass is over.

        Half of the time is a pause, in which the workers' commits have the database to themselves.
        """
        began = time.monotonic()
        steps, self._pass = self._pass or self._begin(), None
        while True:
            step_at = time.monotonic()
            step = await asyncio.to_thread(next, steps, None)
            if step is None:
                self._end()
                return True
            if isinstance(step, Pruned):
                self._counts[step.table] += step.rows
            else:
                log.warning("the audit lines of %d are not deleted: %s", step.day, step.reason)
            await asyncio.sleep(time.monotonic() - step_at)
            if time.monotonic() - began >= self.round_s:
                self._pass = steps
                return False

    def _begin(self) -> Iterator[Step]:
        # The earlier of two clocks: one clock that is years ahead must not delete everything.
        at_ms = min(self.clock_ms(), now_ms())
        before = cutoffs(at_ms, self.keep_days * DAY_MS, self.keep_audit_days * DAY_MS)
        return prune(self.engine, before, at_ms)

    def _end(self) -> None:
        self._next_at = time.monotonic() + EVERY_S
        if self._counts.total():
            rows = ", ".join(f"{n} of {table}" for table, n in self._counts.items() if n)
            log.info("deleted rows that are kept no longer: %s", rows)
        self._counts.clear()
