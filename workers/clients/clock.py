"""The time that all workers of one installation agree on: their Redis server's.

A deadline or a moment of return that one worker wrote is read by another. By clocks of their own, a
worker an hour ahead would let jobs expire, and what it put off for a second would wait an hour.
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
    """Counts on by itself between two answers of the server; a change of it is followed."""

    def __init__(self, lane: RedisBatcher) -> None:
        self._lane = lane
        self._ahead_ms = now_ms() - time.monotonic() * 1000

    def now_ms(self) -> int:
        """The server's wall clock in Unix ms; before its first answer this machine's."""
        return int(time.monotonic() * 1000 + self._ahead_ms)

    async def ask(self) -> None:
        """The clock is right, up to half of a round trip; as it was where the server refuses."""
        began_ms = time.monotonic() * 1000
        try:
            seconds, micros = await self._lane.send("TIME")
        except RedisError as error:
            log.warning("the server does not tell its time: %s", error)
            return
        middle_ms = (began_ms + time.monotonic() * 1000) / 2
        self._ahead_ms = int(seconds) * 1000 + int(micros) / 1000 - middle_ms

    async def keep(self) -> None:
        """Asks now and then, until it is cancelled."""
        while True:
            await self.ask()
            await asyncio.sleep(ASK_EVERY_S)
