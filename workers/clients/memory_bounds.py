"""How many bytes of Redis results and cached answers may take.

The settings say it. Where Redis has a `maxmemory`, they get a share of that at most: the rest is
for the jobs, and a full Redis refuses new ones.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from redis.exceptions import RedisError

from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.memory")

MB = 1024 * 1024

RESULTS_SHARE = 1 / 4
"""Share of `maxmemory` that results take at most."""

CACHE_SHARE = 1 / 8
"""Share of `maxmemory` that cached answers take at most."""

ASK_EVERY_S = 10.0


class MemoryBounds:
    """The bounds in force, in bytes: `results_bytes` and `cache_bytes`."""

    def __init__(self, *, results_mb: int = 1024, cache_mb: int = 256) -> None:
        self._results_mb = results_mb
        self._cache_mb = cache_mb
        self._maxmemory = 0
        self.results_bytes = results_mb * MB
        self.cache_bytes = cache_mb * MB

    def fit(self, maxmemory: int) -> None:
        """Follow the memory that Redis may use, in bytes; 0 is no limit. Log a lower bound."""
        if maxmemory == self._maxmemory:
            return
        self._maxmemory = maxmemory
        limit = maxmemory or 1 << 60
        self.results_bytes = min(self._results_mb * MB, int(limit * RESULTS_SHARE))
        self.cache_bytes = min(self._cache_mb * MB, int(limit * CACHE_SHARE))
        wanted = (
            ("HEADGATE_RESULTS_MB", self._results_mb, "results", self.results_bytes),
            ("HEADGATE_CACHE_MB", self._cache_mb, "cached answers", self.cache_bytes),
        )
        for name, asked_mb, what, given in wanted:
            if given < asked_mb * MB:
                log.warning(
                    "%s is %d, but Redis has a maxmemory of %.1f MB: %s take at most %.1f MB of it",
                    name, asked_mb, maxmemory / MB, what, given / MB,
                )  # fmt: skip

    async def ask(self, batcher: RedisBatcher) -> None:
        """Ask Redis for its `maxmemory`, and follow it. Keep the bounds if Redis refuses."""
        try:
            facts: Any = await batcher.send("INFO", "memory")
        except RedisError as error:
            log.warning("Redis refuses INFO (%s); the bounds of memory stay as they were", error)
            return
        self.fit(int(facts.get("maxmemory", 0)))

    async def keep(self, batcher: RedisBatcher) -> None:
        """Ask every 10 s until cancelled: an operator may change the limit."""
        while True:
            await self.ask(batcher)
            await asyncio.sleep(ASK_EVERY_S)
