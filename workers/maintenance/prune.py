"""Removes what is not needed any more from broker and cache, and idempotency keys that are over."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sqlalchemy import Engine, delete, select

from headgate.shared.broker import cache_index, dead_letters
from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import lists_of
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import KEY_KEPT_MS, idempotency
from headgate.workers.clients.memory_bounds import MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance import census

log = logging.getLogger("headgate.sweep")

MOST_QUEUED = 200_000
"""Purged jobs are looked for only while at most this many messages are in the queues."""

PAGE = 1000

EVICTIONS = 200
"""Most calls that evict in one round: 100,000 answers, 40,000 results. The next round goes on."""


class Prune:
    """Prunes broker and cache. Only one worker at a time uses it."""

    def __init__(
        self,
        batcher: RedisBatcher,
        keys: Keys,
        *,
        queues: list[str],
        most_letters: int,
        most_bytes: int,
        bounds: MemoryBounds,
    ) -> None:
        self._batcher = batcher
        self._keys = keys
        self._queues = queues
        self._most_letters = most_letters
        self._most_bytes = most_bytes
        self._bounds = bounds
        self._suspects: set[str] = set()

    async def forget_purged(self) -> int:
        """Forget the ids of jobs whose queue somebody has purged or deleted; return their number.

        A job that is missing in two rounds in a row counts as gone. A mistake does no harm: a job
        that is sent again although it waits still ends only once.
        """
        counted = await self._batcher.run(census.count_jobs(self._keys, self._queues))
        missing: set[str] = set()
        if counted.present > counted.placed and counted.queued <= MOST_QUEUED:
            missing = await self._missing()
        gone = sorted(missing & self._suspects)
        self._suspects = missing.difference(gone)
        for first in range(0, len(gone), PAGE):
            await self._batcher.send("SREM", self._keys.present(), *gone[first : first + PAGE])
        if gone:
            log.warning(
                "%d jobs were in no queue any more: a queue was purged or deleted; they are sent "
                "again", len(gone),
            )  # fmt: skip
        return len(gone)

    async def _missing(self) -> set[str]:
        """Return the ids that the broker claims to know, but has nowhere."""
        waiting: set[str] = set()
        for queue in await self._queue_keys():
            first = 0
            while first >= 0:
                page = await self._batcher.run(census.queue_page(queue, first))
                waiting.update(page.ids)
                first = page.next_first
        missing: set[str] = set()
        cursor: Any = 0
        while True:
            cursor, found = await self._batcher.send(
                "SSCAN", self._keys.present(), cursor, "COUNT", PAGE
            )
            ids = [i for i in (raw.decode("utf-8", "replace") for raw in found) if i not in waiting]
            for first in range(0, len(ids), PAGE):
                part = ids[first : first + PAGE]
                lost = await self._batcher.run(census.not_placed(self._keys, part))
                missing.update(lost)
            if int(cursor) == 0:
                return missing

    async def _queue_keys(self) -> list[str]:
        """Return the keys of all queues, also of model classes that this worker does not know."""
        found = {key for name in self._queues for key in lists_of(self._keys, name)}
        cursor: Any = 0
        while True:
            cursor, names = await self._batcher.send(
                "SCAN", cursor, "MATCH", f"{self._keys.prefix}headgate.*", "COUNT", PAGE
            )
            found.update(name.decode() for name in names)
            if int(cursor) == 0:
                return sorted(found - {self._keys.dead()})

    async def evict_answers(self) -> None:
        """Evict expired answers from the cache, and the oldest ones above its size limit."""
        for _ in range(EVICTIONS):
            command = cache_index.evict(self._keys, self._bounds.cache_bytes)
            if not await self._batcher.run(command):
                return

    async def evict_results(self) -> None:
        """Forget expired results, and evict the oldest ones above their size limit."""
        for _ in range(EVICTIONS):
            command = broker_jobs.evict_results(self._keys, self._bounds.results_bytes)
            if not await self._batcher.run(command):
                return

    async def drop_dead_letters(self) -> int:
        """Drop the oldest dead letters above the limits, log it, and return their number.

        The newest one stays, however large it is.
        """
        dead, sums = self._keys.dead(), self._keys.letters()
        dropped = 0
        while True:
            count, size = await asyncio.gather(
                self._batcher.send("LLEN", dead), self._batcher.send("HGET", sums, "bytes")
            )
            over = count - self._most_letters
            if over <= 0 and (int(size or 0) <= self._most_bytes or count <= 1):
                break
            oldest = await self._batcher.send("LRANGE", dead, -max(1, min(over, 100)), -1)
            for head in reversed(oldest):
                parts = head.split(b"\n", 2)
                letter = parts[1].decode() if parts[0] == b"letter" else ""
                command = dead_letters.exhume(self._keys, letter=letter, head=head)
                dropped += await self._batcher.run(command)
        if dropped:
            total = await self._batcher.send("HINCRBY", sums, "shed", dropped)
            log.warning(
                "%d dead letters over the limit were dropped, the oldest first (%d so far)",
                dropped, total,
            )  # fmt: skip
        return dropped


def forget_idempotency_keys(engine: Engine, at_ms: int) -> None:
    """Delete the idempotency keys that are older than a day at this Unix time."""
    old = idempotency.c.created_at_ms <= at_ms - KEY_KEPT_MS
    oldest = select(idempotency.c.created_at_ms).where(old).order_by(idempotency.c.created_at_ms)
    while True:
        with reading(engine) as connection:
            found = connection.execute(oldest.limit(PAGE)).all()
        if not found:
            return
        with writing(engine) as connection:
            last_ms = found[-1].created_at_ms
            connection.execute(delete(idempotency).where(idempotency.c.created_at_ms <= last_ms))
