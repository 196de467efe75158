"""Wakes an idle worker: a token on the wake list of a queue says that there may be something new.

On a connection of its own, since a blocking read keeps all other commands of a connection waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from headgate.shared.broker.keys import Keys

BLOCK_S = 20
"""Longest blocking read, so that a connection which died unseen is noticed `SLACK_S` later."""

SLACK_S = 10
PAUSE_S = 1.0


class Wakeup:
    """Reads tokens; a token wakes one worker, and whoever leaves jobs behind puts a new one."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._reading: asyncio.Task[None] | None = None

    async def idle(self, bell: asyncio.Event, queues: Sequence[str], idle_s: float) -> None:
        """Returns when there may be work: a bell, a token of one of the queues, or after a while.

        A read that brought nothing yet goes on, and counts when this is called again.
        """
        ringing = asyncio.create_task(bell.wait())
        tasks: set[asyncio.Task[Any]] = {ringing}
        if queues:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read(queues))
            tasks.add(self._reading)
        try:
            await asyncio.wait(tasks, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ringing.cancel()

    def forget(self) -> None:
        """A read under way ends: its server may not be the one any more."""
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, queues: Sequence[str]) -> None:
        wakes = [self._keys.wake(queue) for queue in queues]
        execute: Callable[..., Awaitable[Any]] = self._client.execute_command
        try:
            async with asyncio.timeout(BLOCK_S + SLACK_S):
                await execute("BLPOP", *wakes, BLOCK_S)
        except (RedisError, OSError):
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """No read is under way; the connection is closed."""
        await end(self._reading)
        await self._client.aclose()


async def end(task: asyncio.Task[None] | None) -> None:
    """The task has ended, cancelled if need be."""
    while task is not None and not task.done():
        task.cancel()  # again and again: redis-py swallows one that meets it connecting
        await asyncio.wait({task}, timeout=0.1)
