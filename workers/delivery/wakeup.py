"""Wakes an idle worker: a token in the wake list of a queue says that new jobs may be there.

It has a connection of its own, because a blocking read delays all other commands of a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from headgate.shared.broker.keys import Keys

BLOCK_S = 20
"""Longest blocking read. A connection that died unseen is noticed `SLACK_S` after it."""

SLACK_S = 10
PAUSE_S = 1.0


class Wakeup:
    """Reads tokens. A token wakes one worker; a worker that leaves jobs behind puts a new one."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._reading: asyncio.Task[None] | None = None

    async def idle(self, bell: asyncio.Event, queues: Sequence[str], idle_s: float) -> None:
        """Wait until there may be work: for the bell, a token of a queue, at most `idle_s`.

        A read that has brought nothing goes on in the background; the next call waits for it too.
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
        """Cancel the read under way: its server may have been replaced."""
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
        """End the read under way and close the connection."""
        await end(self._reading)
        await self._client.aclose()


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel the task and wait for its end."""
    while task is not None and not task.done():
        task.cancel()  # repeatedly: redis-py swallows a cancellation while it connects
        await asyncio.wait({task}, timeout=0.1)
