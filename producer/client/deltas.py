"""Follows the pieces of answers while they are made: thousands of readers share two connections.

A job's channel only says that there is more; the pieces are read from its stream on Redis, of all
jobs in one round trip, and every second in any case. What cannot be read is no loss: the result
has the whole answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from headgate.producer.client.pubsub import LOOK_EVERY_S, SILENCE_S, Subscriptions, cancelled
from headgate.shared.broker.keys import Keys


class DeltaReader:
    """What one reader has not taken yet. `changed` is set when there is more.

    `claims`: how many claims have written; with the second the answer began anew.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.pieces: deque[str] = deque()
        self.changed = asyncio.Event()
        self.claims = 0
        self.last = "0-0"

    def take(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        """The pieces are there for the reader; those of an earlier claim are not, any more."""
        for name, fields in entries:
            claim = name.partition(b"-")[0]
            if claim != self.last.encode().partition(b"-")[0]:
                self.claims += 1
                self.pieces.clear()
            self.last = name.decode()
            self.pieces.append(fields[b"d"].decode())
        if entries:
            self.changed.set()


class DeltaReaders:
    """All tails that are followed in one event loop; nothing runs while there is none."""

    def __init__(
        self, client: redis.asyncio.Redis, keys: Keys, *, silence_s: float = SILENCE_S
    ) -> None:
        self._client = client
        self._keys = keys
        self._tails: dict[str, list[DeltaReader]] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._channels = Subscriptions(client, keys.deltas, self._said, silence_s)
        self._following: asyncio.Task[None] | None = None

    def follow(self, job_id: str) -> DeltaReader:
        """A tail that grows until it is left."""
        tail = DeltaReader(job_id)
        self._tails.setdefault(job_id, []).append(tail)
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(), name="tails")
        self._said(job_id)
        return tail

    def leave(self, tail: DeltaReader) -> None:
        """The tail grows no more."""
        tails = self._tails.get(tail.job_id, [])
        if tail in tails:
            tails.remove(tail)
        if not tails:
            self._tails.pop(tail.job_id, None)
        self._wake.set()

    async def close(self) -> None:
        """Nothing runs any more."""
        self._tails.clear()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def _said(self, job_id: str) -> None:
        if job_id in self._tails:
            self._due.add(job_id)
            self._wake.set()

    async def _follow(self) -> None:
        next_round = time.monotonic() + LOOK_EVERY_S
        with contextlib.suppress(asyncio.CancelledError):
            while not cancelled():
                if not self._tails:
                    await self._channels.drop()
                    if not self._tails:  # still: whoever comes from now on starts it anew
                        return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, next_round - time.monotonic())):
                        await self._wake.wait()
                self._wake.clear()
                if time.monotonic() >= next_round:
                    self._due.update(self._tails)
                    next_round = time.monotonic() + LOOK_EVERY_S
                due, self._due = self._due, set()
                await self._read(due)
                await self._channels.follow(self._tails.keys())
        await self._channels.drop()

    async def _read(self, due: Collection[str]) -> None:
        """The tails of these jobs have all that is there."""
        tails = [tail for job_id in due for tail in self._tails.get(job_id, ())]
        if not tails:
            return
        pipe = self._client.pipeline(transaction=False)
        for tail in tails:
            pipe.xrange(self._keys.deltas(tail.job_id), min=f"({tail.last}")
        execute: Callable[..., Any] = pipe.execute
        try:
            replies = await execute(raise_on_error=False)
        except (RedisError, OSError):
            return  # the next round, or the result, brings it
        for tail, reply in zip(tails, replies, strict=True):
            if isinstance(reply, list):
                tail.take(reply)
