"""Read the pieces of answers while they are made: thousands of readers share two connections.

A job's channel only says that there is more. The pieces are read from the job's stream on Redis,
for all jobs in one round trip, after a message and once a second. A piece that cannot be read is no
loss: the result has the whole answer. What a slow reader has not taken stays on Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from headgate.producer.client.delta_reader import DeltaReader, Entries
from headgate.producer.client.pubsub import (
    LOOK_EVERY_S,
    PING_AFTER_S,
    Subscriptions,
    is_cancelled,
)
from headgate.shared.broker.keys import Keys

AT_ONCE = 32
"""So many entries of one job are read in a round trip. An entry has about 32 kB at most."""


class DeltaReaders:
    """All readers of one event loop. Nothing runs while there is none."""

    def __init__(
        self, client: redis.asyncio.Redis, keys: Keys, *, ping_after_s: float = PING_AFTER_S
    ) -> None:
        self._client = client
        self._keys = keys
        self._readers: dict[str, list[DeltaReader]] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._channels = Subscriptions(client, keys.deltas, self._on_news, ping_after_s)
        self._reading: asyncio.Task[None] | None = None
        self._followed = False

    def open(self, job_id: str) -> DeltaReader:
        """Return a reader that gets pieces until it is closed."""
        reader = DeltaReader(job_id, self._on_news)
        if job_id not in self._readers:
            self._followed = False
        self._readers.setdefault(job_id, []).append(reader)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._keep_reading(), name="deltas")
        self._on_news(job_id)
        return reader

    def close_reader(self, reader: DeltaReader) -> None:
        """Stop reading for this reader."""
        readers = self._readers.get(reader.job_id, [])
        if reader in readers:
            readers.remove(reader)
        if not readers:
            self._readers.pop(reader.job_id, None)
            self._followed = False
        self._wake.set()

    async def close(self) -> None:
        """Stop reading for all."""
        self._readers.clear()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _on_news(self, job_id: str, _message: bytes | None = None) -> None:
        if job_id in self._readers:
            self._due.add(job_id)
            self._wake.set()

    async def _keep_reading(self) -> None:
        next_round = time.monotonic() + LOOK_EVERY_S
        with contextlib.suppress(asyncio.CancelledError):
            while not is_cancelled():
                if not self._readers:
                    await self._channels.disconnect()
                    if not self._readers:  # still: `open` starts this task again from now on
                        return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, next_round - time.monotonic())):
                        await self._wake.wait()
                self._wake.clear()
                if time.monotonic() >= next_round:
                    self._due.update(self._readers)
                    self._followed = False
                    next_round = time.monotonic() + LOOK_EVERY_S
                due, self._due = self._due, set()
                await self._read(due)
                if not self._followed:  # comparing the channels of thousands takes its time
                    self._followed = True
                    await self._channels.follow(self._readers.keys())
        await self._channels.disconnect()

    async def _read(self, due: Collection[str]) -> None:
        """Read what is new in the streams of these jobs, for readers that can take more."""
        readers = [
            reader
            for job_id in due
            for reader in self._readers.get(job_id, ())
            if not reader.is_full
        ]
        if not readers:
            return
        pipe = self._client.pipeline(transaction=False)
        for reader in readers:
            reader.read_begins()
            stream = self._keys.deltas(reader.job_id)
            pipe.xrange(stream, min=f"({reader.last}", count=AT_ONCE)
            if reader.is_new:
                pipe.xrevrange(stream, count=1)
        execute: Callable[..., Any] = pipe.execute
        try:
            replies = iter(await execute(raise_on_error=False))
        except (RedisError, OSError):
            return  # the next round reads it, or the result has it
        for reader in readers:
            entries = _entries(next(replies))
            _hand_on(reader, entries, _entries(next(replies)) if reader.is_new else None)


def _entries(reply: object) -> Entries | None:
    """Return the entries in a reply; None for an error."""
    return reply if isinstance(reply, list) else None


def _hand_on(reader: DeltaReader, entries: Entries | None, newest: Entries | None) -> None:
    """Hand the entries to their reader. One that is new begins with the latest claim."""
    if entries is None:
        return
    claims = [name.partition(b"-")[0] for name, _ in (*entries[:1], *(newest or ()))]
    if len(set(claims)) > 1:
        reader.skip_to(claims[-1])
    else:
        reader.add(entries, has_more=len(entries) == AT_ONCE)
