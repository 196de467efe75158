"""Keeps what the broker knows true and bounded: ids of jobs that were purged, dead letters."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from headgate.shared.broker import cache_index, dead_letters
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance import census

log = logging.getLogger("headgate.sweep")

MOST_QUEUED = 200_000
"""Messages that are looked through at most; with more in the queues it waits for less."""

PAGE = 1000

SHEDDINGS = 200
"""Calls of one round that throw answers away: 100,000 of them; the next round goes on."""


class Prune:
    """The part of the sweep that looks at the broker alone; used by one worker at a time."""

    def __init__(
        self,
        lane: RedisBatcher,
        keys: Keys,
        *,
        queues: list[str],
        most_letters: int,
        most_bytes: int,
        cache_bytes: int = 1 << 28,
    ) -> None:
        self._lane = lane
        self._keys = keys
        self._queues = queues
        self._most_letters = most_letters
        self._most_bytes = most_bytes
        self._cache_bytes = cache_bytes
        self._suspects: set[str] = set()

    async def forget_purged(self) -> int:
        """The broker no longer claims to know jobs whose queue somebody has purged or deleted.

        Who is missing twice in a row counts as gone. To be wrong does no harm: a job that is sent
        again although it waits ends once all the same.
        """
        counted = await self._lane.run(census.census(self._keys, self._queues))
        missing: set[str] = set()
        if counted.present > counted.placed and counted.queued <= MOST_QUEUED:
            missing = await self._missing()
        gone = sorted(missing & self._suspects)
        self._suspects = missing.difference(gone)
        for first in range(0, len(gone), PAGE):
            await self._lane.send("SREM", self._keys.present(), *gone[first : first + PAGE])
        if gone:
            log.warning("%d jobs were in no queue any more: purged, or a queue deleted", len(gone))
        return len(gone)

    async def _missing(self) -> set[str]:
        """Ids that the broker claims to know, and that are nowhere on it."""
        waiting: set[str] = set()
        for queue in await self._lists():
            first = 0
            while first >= 0:
                page = await self._lane.run(census.waiting(queue, first))
                waiting.update(page.ids)
                first = page.next_first
        missing: set[str] = set()
        cursor: Any = 0
        while True:
            cursor, found = await self._lane.send(
                "SSCAN", self._keys.present(), cursor, "COUNT", PAGE
            )
            ids = [i for i in (raw.decode("utf-8", "replace") for raw in found) if i not in waiting]
            for first in range(0, len(ids), PAGE):
                part = ids[first : first + PAGE]
                absent = await self._lane.run(census.absent(self._keys, part))
                missing.update(absent)
            if int(cursor) == 0:
                return missing

    async def _lists(self) -> list[str]:
        """All queues that there are, also those of classes that this worker does not know."""
        found = {self._keys.queue(name) for name in self._queues}
        cursor: Any = 0
        while True:
            cursor, names = await self._lane.send(
                "SCAN", cursor, "MATCH", f"{self._keys.prefix}headgate.*", "COUNT", PAGE
            )
            found.update(name.decode() for name in names)
            if int(cursor) == 0:
                return sorted(found - {self._keys.dead()})

    async def shed_answers(self) -> None:
        """The cache holds nothing that has expired, and no more than its bound."""
        for _ in range(SHEDDINGS):
            if not await self._lane.run(cache_index.evict(self._keys, self._cache_bytes)):
                return

    async def shed_letters(self) -> int:
        """No more dead letters are kept than the bounds allow: the oldest have gone, and are told.

        The newest stays, however large it is.
        """
        dead, sums = self._keys.dead(), self._keys.letters()
        shed = 0
        while True:
            count, size = await asyncio.gather(
                self._lane.send("LLEN", dead), self._lane.send("HGET", sums, "bytes")
            )
            over = count - self._most_letters
            if over <= 0 and (int(size or 0) <= self._most_bytes or count <= 1):
                break
            for head in (await self._lane.send("LRANGE", dead, -max(1, min(over, 100)), -1))[::-1]:
                words = head.split(b"\n", 2)
                letter = words[1].decode() if words[0] == b"letter" else ""
                command = dead_letters.exhume(self._keys, letter=letter, head=head)
                shed += await self._lane.run(command)
        if shed:
            total = await self._lane.send("HINCRBY", sums, "shed", shed)
            words_ = "%d dead letters over the bound were dropped, the oldest first (%d in all)"
            log.warning(words_, shed, total)
        return shed
