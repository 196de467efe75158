"""Maintenance: makes prompts and answers go whose callers want nothing to be stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy import Engine

from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.shed import shed, to_shed
from headgate.shared.job.ids import now_ms
from headgate.workers.clients.redis_batcher import RedisBatcher

AT_ONCE = 200
"""Jobs that are shed in one transaction."""

TIMES = 25
"""Transactions of one round at most: other work of maintenance waits for it."""

AFTER_MS = 60_000
"""So long after its end the answer of such a job can be read by the caller who waits for it."""


class Shed:
    """Sheds the jobs that are due, in the rounds of maintenance."""

    def __init__(
        self, engine: Engine, batcher: RedisBatcher, keys: Keys,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._batcher = batcher
        self._keys = keys
        self._clock_ms = clock_ms

    async def round(self) -> int:
        """Shed the jobs that are due; return how many."""
        done = 0
        for _ in range(TIMES):
            done += (found := await self._some())
            if found < AT_ONCE:
                break
        return done

    async def _some(self) -> int:
        due = await asyncio.to_thread(self._due)
        if due:
            names = [
                name for one in due for name in (self._keys.result(one), self._keys.deltas(one))
            ]
            await self._batcher.send("UNLINK", *names)  # first: a shed job is not found again
            await asyncio.to_thread(self._shed, due)
        return len(due)

    def _due(self) -> list[str]:
        with reading(self._engine) as connection:
            return to_shed(connection, self._clock_ms() - AFTER_MS, AT_ONCE)

    def _shed(self, ids: list[str]) -> None:
        with writing(self._engine) as connection:
            shed(connection, ids)
