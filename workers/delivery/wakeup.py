"""Wakes an idle worker: a token in the wake list of a queue says that new jobs may be there.

It has a connection of its own, because a blocking read delays all other commands of a connection.

A token is never dropped. It is in the list, or on its way to a read, or in a worker's hand. There
it stays until that worker fetches from its queue, or puts it back for the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from headgate.shared.broker.keys import Keys

log = logging.getLogger("headgate.wakeup")

BLOCK_S = 20
"""Longest blocking read. A connection that died unseen is noticed `SLACK_S` after it."""

SLACK_S = 10
PAUSE_S = 1.0

PUT_BACK_S = 2.0
"""How long putting tokens back may take. Other workers look by themselves each second."""


class Wakeup:
    """Reads tokens. A token wakes one worker; a worker that leaves jobs behind puts a new one."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._reading: asyncio.Task[list[str]] | None = None
        self._queues: list[str] = []
        """The queues of the read."""
        self._failures = 0

    async def idle(self, bell: asyncio.Event, queues: Sequence[str], idle_s: float) -> None:
        """Wait until there may be work: for the bell, a token of a queue, at most `idle_s`.

        A read that has brought nothing goes on in the background; the next call waits for it too.
        Return at once if it has brought a token meanwhile. With no `queues` the worker can take no
        job: a token that comes is put back for the other workers.
        """
        until = asyncio.get_running_loop().time() + idle_s
        ringing = asyncio.create_task(bell.wait())
        try:
            if queues and sorted(queues) != sorted(self._queues):
                await self._stop_reading()
            while True:
                if queues and self._reading is None:
                    self._queues = list(queues)
                    self._reading = asyncio.create_task(self._read(self._queues))
                tasks: set[asyncio.Task[Any]] = {ringing}
                if self._reading is not None:
                    tasks.add(self._reading)
                left_s = max(0.0, until - asyncio.get_running_loop().time())
                await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                if queues or self._reading is None or not self._reading.done():
                    return
                await self._put_back(self._in_hand())
                self._reading = None
        finally:
            ringing.cancel()

    def before_fetch(self, queues: Sequence[str]) -> None:
        """Drop the token in hand: the fetch that follows finds the jobs of all these queues.

        Call it before the fetch is sent. A token that comes later may mean a job that the fetch
        has not seen.
        """
        ended = self._reading is not None and self._reading.done()
        if ended and set(self._in_hand()) <= set(queues):
            self._reading = None

    def forget(self) -> None:
        """Cancel the read under way: its server may have been replaced."""
        if self._reading is not None:
            self._reading.cancel()

    def _in_hand(self) -> list[str]:
        """Return the queues whose token the read has brought."""
        reading = self._reading
        if reading is None or not reading.done() or reading.cancelled():
            return []
        return reading.result()

    async def _read(self, queues: Sequence[str]) -> list[str]:
        """Return the queues that may have jobs: that of the token; all if the read failed."""
        wakes = {self._keys.wake(queue): queue for queue in queues}
        execute: Callable[..., Awaitable[Any]] = self._client.execute_command
        try:
            async with asyncio.timeout(BLOCK_S + SLACK_S):
                found = await execute("BLPOP", *wakes, BLOCK_S)
        except Exception as error:
            # The connection may have broken with a token on it, so the worker looks at once. If
            # reads go on failing, it looks after each pause.
            if not isinstance(error, RedisError | OSError):
                log.exception("waiting for jobs went wrong; looking for them each second")
            self._failures += 1
            if self._failures > 1:
                await asyncio.sleep(PAUSE_S)
            return list(queues)
        self._failures = 0
        if found is None:
            return []
        name = found[0]
        return [wakes[name.decode() if isinstance(name, bytes) else name]]

    async def _stop_reading(self) -> None:
        """End the read. A token may have been on its way to it, so put one back for each queue."""
        if self._reading is not None:
            await end(self._reading)
            self._reading = None
            await self._put_back(self._queues)

    async def _put_back(self, queues: Sequence[str]) -> None:
        """Wake another worker for each of these queues. One token too many does no harm."""
        pipe = self._client.pipeline(transaction=False)
        for wake in map(self._keys.wake, queues):
            pipe.rpush(wake, "1")
            pipe.ltrim(wake, 0, 0)
        execute: Callable[..., Awaitable[Any]] = pipe.execute
        putting = asyncio.ensure_future(execute(raise_on_error=False))
        try:
            await asyncio.wait({putting}, timeout=PUT_BACK_S)
        finally:
            await end(putting)
        if not putting.cancelled():
            putting.exception()  # without Redis nobody can be woken

    async def close(self) -> None:
        """End the read under way and close the connection."""
        await self._stop_reading()
        await self._client.aclose()


async def end(task: asyncio.Future[Any] | None) -> None:
    """Cancel the task and wait for its end."""
    while task is not None and not task.done():
        task.cancel()  # repeatedly: redis-py swallows a cancellation while it connects
        await asyncio.wait({task}, timeout=0.1)
