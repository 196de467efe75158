"""Redis commands of many jobs in one round trip: what is asked in one moment leaves together.

While one pipeline is under way the next one gathers, so that under load a round trip carries many
commands and an idle worker still sends at once.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
from redis import exceptions
from redis.exceptions import NoScriptError

from headgate.shared.broker.script import Command, Word
from headgate.shared.servers.redis_client import REDIS_TIMEOUT_S
from headgate.workers.clients.outage_log import OutageLog

T = TypeVar("T")
log = logging.getLogger("headgate.lane")

LARGEST = 1000
"""Commands in one pipeline."""


SILENT = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
"""The server did not answer. Those that say that it is loading or busy are among them."""

REFUSED_S = 0.25
"""Pause before a command is sent again that the server refused for its own state."""


_OF_ITS_STATE = re.compile(r"(?:^|: -)(?:OOM|MISCONF|READONLY|NOREPLICAS|BUSY) ")
"""What redis-py has no class for. Redis 6.2 puts what a script met at the end of a sentence."""


def _passes(reply: Any) -> bool:
    """True for a refusal that has nothing to do with the command: full, read-only, loading."""
    states = (
        exceptions.OutOfMemoryError,
        exceptions.ReadOnlyError,
        exceptions.BusyLoadingError,
        exceptions.MasterDownError,
        exceptions.TryAgainError,
    )
    return isinstance(reply, states) or (
        isinstance(reply, exceptions.ResponseError) and bool(_OF_ITS_STATE.search(str(reply)))
    )


class RedisBatcher:
    """One asyncio client without a time limit of its own, shared by all jobs of the process."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[tuple[Word, ...], asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._closing = False
        self._silence = OutageLog(log, "Redis", "jobs wait for it")

    def send(self, *words: Word) -> asyncio.Future[Any]:
        """The reply of one command, which must be one that may be sent twice.

        Waits for as long as Redis does not answer; raises ResponseError for a refused command.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((words, future))
        if self._sending is None:
            self._sending = self._loop.create_task(self._flush(), name="lane")
        return future

    async def run(self, command: Command[T]) -> T:
        """The reply of one script."""
        try:
            return command.read(await self.send(*command.by_sha()))
        except NoScriptError:
            return command.read(await self.send(*command.by_text()))

    @property
    def closing(self) -> bool:
        """True when nothing more should be sent."""
        return self._closing

    async def close(self) -> None:
        """What was asked for has been answered; the connection is closed."""
        self._closing = True
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._client.aclose()

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
                replies = await self._exchange([words for words, _ in batch])
                refused = False
                for (words, future), reply in zip(batch, replies, strict=True):
                    if future.done():
                        continue
                    if _passes(reply) and not self._closing:
                        self._silence.missed(reply)
                        self._waiting.append((words, future))
                        refused = True
                        continue
                    if self._closing and isinstance(reply, SILENT):
                        future.cancel()  # no fault of the job's, which goes back
                    elif isinstance(reply, Exception):
                        future.set_exception(reply)
                    else:
                        future.set_result(reply)
                if refused:
                    await asyncio.sleep(REFUSED_S)
                else:
                    self._silence.heard()
        finally:
            self._sending = None

    async def _exchange(self, commands: list[tuple[Word, ...]]) -> list[Any]:
        pause_s = 0.05
        while True:
            pipe = self._client.pipeline(transaction=False)
            for words in commands:
                pipe.execute_command(*words)
            execute: Callable[..., Awaitable[list[Any]]] = pipe.execute
            try:
                # One time limit for all: redis-py would set and lift one for each reply.
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    return await execute(raise_on_error=False)
            except SILENT as error:
                if self._closing:
                    return [error] * len(commands)
                self._silence.missed(error)
                await asyncio.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)
            except Exception as error:  # whoever waits must hear of it, not hang
                return [error] * len(commands)
