"""Logs queues in which jobs wait and that no worker serves; the worker of maintenance does it.

Without any worker nobody logs: `headgate health` and the commands that wait tell it then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import text_of
from headgate.shared.broker.unserved import queue_loads
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.queues")

LOOK_S = 3.0
"""A queue is named when it is found twice in a row: within 10 s, but not for a restart."""

AGAIN_S = 600.0
"""How often the same queue is named again."""

SCAN_COUNT = 5000


class QueueWatch:
    """Watches all queues of the catalog, and those that have waiting jobs."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, queues: Sequence[str], owner: str
    ) -> None:
        self._batcher, self._keys, self._queues, self._owner = batcher, keys, queues, owner
        self._before: set[str] = set()
        self._named_at: dict[str, float] = {}

    async def keep(self) -> None:
        """Look every 3 s until cancelled, while this worker does the maintenance."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                turn = await self._batcher.send("GET", self._keys.sweeper())
                if turn is not None and text_of(turn) == self._owner:
                    await self.look()
                else:
                    self._before, self._named_at = set(), {}
            except RedisError:
                continue  # the fetcher logs the outage
            except Exception:
                log.exception("looking for queues without a worker failed; trying again")

    async def look(self) -> None:
        """Look once; log what has changed."""
        loads = await self._batcher.run(queue_loads(self._keys, self._queues))
        unserved = loads.unserved
        if unserved and await self._has_unlisted(len(loads.workers)):
            unserved = {}
        now = time.monotonic()
        for queue, n in unserved.items():
            known = self._named_at.get(queue)
            if queue in self._before and (known is None or now - known >= AGAIN_S):
                self._named_at[queue] = now
                jobs = "1 job waits" if n == 1 else f"{n} jobs wait"
                log.warning(
                    "queue %s: %s, and no worker serves it; start one: headgate worker --queues %s",
                    queue, jobs, queue,
                )  # fmt: skip
        for queue in [name for name in self._named_at if name not in unserved]:
            del self._named_at[queue]
            log.warning("queue %s: a worker serves it, or no job waits there any more", queue)
        self._before = set(unserved)

    async def _has_unlisted(self, listed: int) -> bool:
        """Return whether a worker of the release before lives: it is not in the list of workers."""
        cursor, found = 0, 0
        while True:
            words = (cursor, "MATCH", self._keys.worker("*"), "COUNT", SCAN_COUNT)
            page = await self._batcher.send("SCAN", *words)
            cursor, found = int(page[0]), found + len(page[1])
            if cursor == 0:
                return found > listed
