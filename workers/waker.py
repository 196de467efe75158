"""Wakes an idle worker: a token on the wake list of a queue says that there may be something new.

On a connection of its own, since a blocking read keeps all other commands of a connection waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from shared.keys import Keys

BLOCK_S = 20
"""Longest blocking read, so that a connection which died unseen is noticed `SLACK_S` later."""

SLACK_S = 10
PAUSE_S = 1.0


class Waker:
    """Reads tokens; a token wakes one worker, and whoever leaves jobs behind puts a new one."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    async def wait(self, queues: Sequence[str]) -> None:
        """Returns when there may be new jobs in one of the queues, and now and then without."""
        wakes = [self._keys.wake(queue) for queue in queues]
        execute: Callable[..., Awaitable[Any]] = self._client.execute_command
        try:
            async with asyncio.timeout(BLOCK_S + SLACK_S):
                await execute("BLPOP", *wakes, BLOCK_S)
        except (RedisError, OSError):
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """The connection is closed."""
        await self._client.aclose()
