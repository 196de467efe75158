"""Sends the Redis commands of many jobs in one round trip.

While one pipeline is under way, the next one fills. Under load a round trip carries many commands;
an idle worker still sends at once. Calls of a script that serves many jobs become one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import redis.asyncio
from redis import exceptions
from redis.exceptions import NoScriptError, ResponseError

from headgate.shared.broker.script import Command, Word
from headgate.shared.servers.redis_check import refuses_for_now
from headgate.shared.servers.redis_client import REDIS_TIMEOUT_S
from headgate.workers.clients.joined_calls import JoinedCall, PendingCommand, calls_of
from headgate.workers.clients.outage_log import OutageLog

T = TypeVar("T")
log = logging.getLogger("headgate.lane")

LARGEST = 1000
"""Commands in one pipeline."""


NO_ANSWER = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
"""The server did not answer. BusyLoadingError is one of them."""

REFUSED_S = 0.25
"""Pause before a command that Redis refused because of its own state is sent again."""


class RedisBatcher:
    """One asyncio client, shared by all jobs of the process. The client sets no time limits."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._waiting: list[PendingCommand] = []
        self._sending: asyncio.Task[None] | None = None
        self._closing = False
        self._outage_log = OutageLog(log, "Redis", "jobs wait for it")

    def send(self, *words: Word) -> asyncio.Future[Any]:
        """Send one command and return its reply. The command must be safe to send twice.

        Waits for as long as Redis does not answer. Raises ResponseError if Redis refuses.
        """
        return self._ask(words, 0)

    async def run(self, command: Command[T]) -> T:
        """Run one script and return its reply."""
        try:
            return command.read(await self._ask(command.by_sha(), command.tail_at))
        except NoScriptError:
            return command.read(await self._ask(command.by_text(), command.tail_at))

    def _ask(self, words: tuple[Word, ...], tail_at: int) -> asyncio.Future[Any]:
        ask = PendingCommand(words, self._loop.create_future(), tail_at)
        self._waiting.append(ask)
        if self._sending is None:
            self._sending = self._loop.create_task(self._flush(), name="redis batch")
        return ask.future

    @property
    def closing(self) -> bool:
        """True once nothing more should be sent."""
        return self._closing

    async def close(self) -> None:
        """Wait for the replies under way, then close the connection."""
        self._closing = True
        if self._sending is not None:
            await asyncio.gather(self._sending, return_exceptions=True)
        await self._client.aclose()

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
                calls = calls_of(batch)
                replies = await self._exchange([call.words for call in calls])
                answered = [*map(self._answer, calls, replies)]
                if not all(answered):
                    await asyncio.sleep(REFUSED_S)
                else:
                    self._outage_log.answered()
        finally:
            self._sending = None

    def _answer(self, call: JoinedCall, reply: Any) -> bool:
        """Hand out the reply of a call; return False where Redis refuses for now."""
        asks = [ask for ask in call.asks if not ask.future.done()]
        if not asks:
            return True
        if refuses_for_now(reply) and not self._closing:
            self._outage_log.failed(reply)
            self._waiting += asks
            return False
        if self._closing and isinstance(reply, NO_ANSWER):
            for ask in asks:  # not the job's fault: it returns to its queue
                ask.future.cancel()
        elif len(call.asks) > 1 and _may_be_of_one(reply):
            self._waiting += [replace(ask, tail_at=0) for ask in asks]
        elif isinstance(reply, Exception):
            for ask in asks:
                ask.future.set_exception(reply)
        else:
            for n, ask in enumerate(call.asks):
                if not ask.future.done():
                    ask.future.set_result([reply[n]] if call.is_joined else reply)
        return True

    async def _exchange(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        pause_s = 0.05
        while True:
            pipe = self._client.pipeline(transaction=False)
            for words in commands:
                pipe.execute_command(*words)
            execute: Callable[..., Awaitable[list[Any]]] = pipe.execute
            try:
                # One time limit for the whole batch: redis-py would set and lift one per reply.
                async with asyncio.timeout(REDIS_TIMEOUT_S):
                    return await execute(raise_on_error=False)
            except NO_ANSWER as error:
                if self._closing:
                    return [error] * len(commands)
                self._outage_log.failed(error)
                await asyncio.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)
            except Exception as error:  # raised where the reply is awaited, so that nobody hangs
                return [error] * len(commands)


def _may_be_of_one(reply: Any) -> bool:
    """Whether one command of a joined call may be at fault: then each is sent by itself."""
    return isinstance(reply, ResponseError) and not isinstance(reply, NoScriptError)
