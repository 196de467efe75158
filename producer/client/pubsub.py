"""Subscriptions of jobs on Redis: they say when to look, over one connection that mends itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

LOOK_EVERY_S = 1.0

SILENCE_S = 20.0
"""After this long without a word on the channel the server is asked whether it is there."""


def cancelled() -> bool:
    """Whether the running task was told to end, also where the exception has been lost.

    redis-py sends under asyncio.wait_for, which loses a cancellation that comes at the moment when
    the send has ended (Python 3.11).
    """
    this = asyncio.current_task()
    return this is not None and this.cancelling() > 0


class Subscriptions:
    """The channels of the jobs that are followed; `channel` names that of a job."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        channel: Callable[[str], str],
        said: Callable[[str], None],
        silence_s: float,
    ) -> None:
        self._client = client
        self._name = channel
        self._said = said
        self._silence_s = silence_s
        self._ids: dict[bytes, str] = {}
        self._pubsub: PubSub | None = None
        self._listening: asyncio.Task[None] | None = None
        self._try_again_at = 0.0

    async def follow(self, wanted: Collection[str]) -> None:
        """The channels of exactly these jobs are, or will be, subscribed; never raises RedisError.

        The server's word that a channel is subscribed counts as news of its job.
        """
        try:
            if self._listening is not None and self._listening.done():
                await self._drop()
            new = [i for i in wanted if self._channel(i) not in self._ids]
            old = [c for c, job_id in self._ids.items() if job_id not in wanted]
            if self._pubsub is None:
                if not new or time.monotonic() < self._try_again_at:
                    return
                self._try_again_at = time.monotonic() + LOOK_EVERY_S
                self._pubsub = self._client.pubsub()
            if new:
                channels = {self._channel(job_id): job_id for job_id in new}
                self._ids |= channels
                await self._pubsub.subscribe(*channels)
                if self._listening is None:
                    self._listening = asyncio.create_task(self._listen(self._pubsub))
            if old:
                for channel in old:
                    del self._ids[channel]
                await self._pubsub.unsubscribe(*old)
        except (RedisError, OSError):
            await self._drop()

    async def close(self) -> None:
        """The connection is closed."""
        await self.drop()
        await self._client.aclose()

    async def drop(self) -> None:
        """There is no connection, until something is followed again."""
        await self._drop(farewell=True)

    async def _listen(self, pubsub: PubSub) -> None:
        asked = False
        with contextlib.suppress(RedisError, OSError, RuntimeError):
            while not cancelled():
                message = await pubsub.get_message(timeout=self._silence_s)
                if message is not None:
                    asked = False
                    if message["type"] in ("message", "subscribe"):
                        job_id = self._ids.get(message["channel"])
                        if job_id is not None:
                            self._said(job_id)
                elif asked:
                    return  # no answer: the line is dead, though nobody has closed it
                else:
                    asked = True
                    await pubsub.ping()

    def _channel(self, job_id: str) -> bytes:
        return self._name(job_id).encode()

    async def _drop(self, *, farewell: bool = False) -> None:
        """There is no connection; the next `follow` opens one and subscribes anew."""
        listening, self._listening = self._listening, None
        pubsub, self._pubsub = self._pubsub, None
        self._ids = {}
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if pubsub is not None:
            if farewell and pubsub.connection is not None:
                # aclose does not wait for the end of TLS, and the loop may end right after it.
                with contextlib.suppress(RedisError, OSError):
                    await pubsub.connection.disconnect()
            with contextlib.suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
