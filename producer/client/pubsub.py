"""Subscribe to channels of jobs on Redis, over one connection that is opened again when it breaks.

A message says when to look, and what happened may be in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Set

import redis.asyncio
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

LOOK_EVERY_S = 1.0

PING_AFTER_S = 20.0
"""After so many seconds without a message the server is sent a PING."""


def is_cancelled() -> bool:
    """Return whether the running task was cancelled, also if the exception was lost.

    redis-py sends under asyncio.wait_for, which loses a cancellation that comes at the moment when
    the send has ended (Python 3.11).
    """
    this = asyncio.current_task()
    return this is not None and this.cancelling() > 0


class Subscriptions:
    """The channels of the jobs that are followed.

    `channel` returns the name of a job's channel. `on_news` is called with the id of a job when
    something may have happened to it, and with the message that says so, if there is one.
    `ping_after_s`: see PING_AFTER_S.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        channel: Callable[[str], str],
        on_news: Callable[[str, bytes | None], None],
        ping_after_s: float,
    ) -> None:
        self._client = client
        self._channel_name = channel
        self._on_news = on_news
        self._ping_after_s = ping_after_s
        self._ids: dict[bytes, str] = {}
        self._channels: dict[str, bytes] = {}
        self._pubsub: PubSub | None = None
        self._listening: asyncio.Task[None] | None = None
        self._try_again_at = 0.0

    def brings_news_of(self, job_id: str) -> bool:
        """Return whether the next `follow` subscribes to this job, on a connection that is open."""
        is_open = self._listening is not None and not self._listening.done()
        return is_open and job_id not in self._channels

    async def follow(self, wanted: Set[str]) -> None:
        """Subscribe to the channels of exactly these jobs; never raises RedisError.

        If Redis does not answer, the next call tries again. That a channel is subscribed counts as
        news of its job.
        """
        try:
            if self._listening is not None and self._listening.done():
                await self._disconnect()
            new = wanted - self._channels.keys()
            old = self._channels.keys() - wanted
            if self._pubsub is None:
                if not new or time.monotonic() < self._try_again_at:
                    return
                self._try_again_at = time.monotonic() + LOOK_EVERY_S
                self._pubsub = self._client.pubsub()
            if new:
                channels = {job_id: self._channel_name(job_id).encode() for job_id in new}
                self._channels |= channels
                self._ids |= {channel: job_id for job_id, channel in channels.items()}
                await self._pubsub.subscribe(*channels.values())
                if self._listening is None:
                    self._listening = asyncio.create_task(self._listen(self._pubsub))
            if old:
                channels_left = [self._channels.pop(job_id) for job_id in old]
                for channel in channels_left:
                    del self._ids[channel]
                await self._pubsub.unsubscribe(*channels_left)
        except (RedisError, OSError):
            await self._disconnect()

    async def close(self) -> None:
        """Close the connection and the client."""
        await self.disconnect()
        await self._client.aclose()

    async def disconnect(self) -> None:
        """Close the connection; `follow` opens a new one."""
        await self._disconnect(wait_for_tls=True)

    async def _listen(self, pubsub: PubSub) -> None:
        pinged = False
        with contextlib.suppress(RedisError, OSError, RuntimeError):
            while not is_cancelled():
                message = await pubsub.get_message(timeout=self._ping_after_s)
                if message is not None:
                    pinged = False
                    kind, job_id = message["type"], self._ids.get(message["channel"])
                    if job_id is not None and kind in ("message", "subscribe"):
                        self._on_news(job_id, message["data"] if kind == "message" else None)
                elif pinged:
                    return  # no answer to the PING: the connection is dead, though nobody closed it
                else:
                    pinged = True
                    await pubsub.ping()

    async def _disconnect(self, *, wait_for_tls: bool = False) -> None:
        listening, self._listening = self._listening, None
        pubsub, self._pubsub = self._pubsub, None
        self._ids, self._channels = {}, {}
        if listening is not None:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        if pubsub is not None:
            if wait_for_tls and pubsub.connection is not None:
                # aclose does not wait for the end of TLS, and the loop may end right after it.
                with contextlib.suppress(RedisError, OSError):
                    await pubsub.connection.disconnect()
            with contextlib.suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]
