"""Watches how full Redis is, and logs what takes the room before it stops everything."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from redis.exceptions import ResponseError

from headgate.shared.broker import memory
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.memory")

LOOK_EVERY_S = 10.0
LOG_EVERY_S = 300.0


class MemoryWatch:
    """Looks every 10 s, and logs every 5 minutes while Redis is nearly full."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, queues: Sequence[str],
        *, look_every_s: float = LOOK_EVERY_S,
    ) -> None:  # fmt: skip
        self._batcher = batcher
        self._keys = keys
        self._queues = queues
        self._look_every_s = look_every_s
        self._looked_at: float | None = None
        self._logged_at: float | None = None

    async def look(self) -> None:
        """Look if it is time, and log that Redis is nearly full, or no longer."""
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < self._look_every_s:
            return
        self._looked_at = now
        facts: Any = await self._batcher.send("INFO", "memory")
        use = memory.use_of(facts)
        if not use.is_full:
            if self._logged_at is not None:
                self._logged_at = None
                log.warning("Redis has room again: %s is used", use)
            return
        if self._logged_at is not None and now - self._logged_at < LOG_EVERY_S:
            return
        self._logged_at = now
        try:
            takes = await self._batcher.run(memory.takers(self._keys, self._queues))
        except ResponseError as error:  # a user without the right to MEMORY
            log.warning("what takes the memory of Redis is not known: %s", error)
            takes = {}
        use = replace(use, takes=takes)
        log.warning("Redis is nearly full, at %s: %s; %s", use, use.takers, memory.REMEDY)
