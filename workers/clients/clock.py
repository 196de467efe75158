"""The clock that all workers of one installation share: the clock of their Redis server.

One worker reads deadlines and due times that another has written. With clocks of their own, a
worker whose clock is an hour ahead would let jobs expire, and would defer them by an hour too long.
"""

from __future__ import annotations

import asyncio
import logging
import time

from redis.exceptions import RedisError

from headgate.shared.job.ids import now_ms
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.clock")

ASK_EVERY_S = 5.0


class Clock:
    """Follows the server's clock, and counts on by itself between two of its answers."""

    def __init__(self, batcher: RedisBatcher) -> None:
        self._batcher = batcher
        self._ahead_ms = now_ms() - time.monotonic() * 1000

    def now_ms(self) -> int:
        """Return the server's time in Unix ms; before its first answer, this machine's time."""
        return int(time.monotonic() * 1000 + self._ahead_ms)

    async def ask(self) -> None:
        """Set the clock by the server, right to half of a round trip. Keep it if Redis refuses."""
        began_ms = time.monotonic() * 1000
        try:
            seconds, micros = await self._batcher.send("TIME")
        except RedisError as error:
            log.warning("Redis refuses TIME (%s); the clock goes on as it was", error)
            return
        middle_ms = (began_ms + time.monotonic() * 1000) / 2
        self._ahead_ms = int(seconds) * 1000 + int(micros) / 1000 - middle_ms

    async def keep(self) -> None:
        """Set the clock every 5 s until cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_EVERY_S)
