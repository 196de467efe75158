"""Read the pieces of answers while they are made: thousands of readers share two connections.

A job's channel only says that there is more. The pieces are read from the job's stream on Redis,
for all jobs in one round trip, after a message and once a second. A piece that cannot be read is no
loss: the result has the whole answer.
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

from headgate.producer.client.pubsub import (
    LOOK_EVERY_S,
    PING_AFTER_S,
    Subscriptions,
    is_cancelled,
)
from headgate.shared.broker.keys import Keys


class DeltaReader:
    """The pieces of one job's answer that one reader has not taken yet.

    `changed` is set when there is more. `claims` counts the claims that have written pieces; when
    it grows after the first, another worker began the answer anew. `last` is the id of the last
    entry of the stream that was read.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.pieces: deque[str] = deque()
        self.changed = asyncio.Event()
        self.claims = 0
        self.last = "0-0"

    def add(self, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        """Add the entries of the stream; drop pieces of earlier claims."""
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

    def open(self, job_id: str) -> DeltaReader:
        """Return a reader that gets pieces until it is closed."""
        reader = DeltaReader(job_id)
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
                    next_round = time.monotonic() + LOOK_EVERY_S
                due, self._due = self._due, set()
                await self._read(due)
                await self._channels.follow(self._readers.keys())
        await self._channels.disconnect()

    async def _read(self, due: Collection[str]) -> None:
        """Read what is new in the streams of these jobs."""
        readers = [reader for job_id in due for reader in self._readers.get(job_id, ())]
        if not readers:
            return
        pipe = self._client.pipeline(transaction=False)
        for reader in readers:
            pipe.xrange(self._keys.deltas(reader.job_id), min=f"({reader.last}")
        execute: Callable[..., Any] = pipe.execute
        try:
            replies = await execute(raise_on_error=False)
        except (RedisError, OSError):
            return  # the next round reads it, or the result has it
        for reader, reply in zip(readers, replies, strict=True):
            if isinstance(reply, list):
                reader.add(reply)
