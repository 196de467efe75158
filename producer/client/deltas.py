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
from itertools import islice
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import RedisError

from headgate.producer.client.delta_reader import DeltaReader, Entries, claim_of
from headgate.producer.client.pubsub import (
    LOOK_EVERY_S,
    PING_AFTER_S,
    Subscriptions,
    is_cancelled,
)
from headgate.shared.broker.keys import Keys

JOBS_AT_ONCE = 64
"""So many jobs are read in a round trip: all that it brings is in memory at once."""


class Place(NamedTuple):
    """So many entries of a job's stream, after one of them."""

    job_id: str
    after: str
    most: int


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
        places: dict[Place, list[DeltaReader]] = {}
        for reader in readers:  # those at the same place share what is read
            place = Place(reader.job_id, reader.last, reader.wanted)
            places.setdefault(place, []).append(reader)
        left = iter(places.items())
        while part := list(islice(left, JOBS_AT_ONCE)):
            await self._read_part(part)

    async def _read_part(self, places: list[tuple[Place, list[DeltaReader]]]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for place, readers in places:
            for reader in readers:
                reader.read_begins()
            pipe.xrange(self._keys.deltas(place.job_id), min=f"({place.after}", count=place.most)
        found = [
            (reader, entries, len(entries) == place.most)
            for (place, readers), entries in zip(places, await _execute(pipe), strict=False)
            if entries is not None
            for reader in readers
        ]
        late = {reader for reader, _, has_more in found if reader.is_new and has_more}
        newest = await self._newest_claims(late) if late else {}
        for reader, entries, has_more in found:
            if reader not in late or newest.get(reader) == claim_of(entries[0]):
                reader.add(entries, has_more=has_more)
            elif reader in newest:
                reader.skip_to(newest[reader])

    async def _newest_claims(self, readers: Collection[DeltaReader]) -> dict[DeltaReader, bytes]:
        """Return the latest claim that has written to each stream: a reader begins with that."""
        pipe = self._client.pipeline(transaction=False)
        for reader in readers:
            pipe.xrevrange(self._keys.deltas(reader.job_id), count=1)
        replies = zip(readers, await _execute(pipe), strict=False)
        return {reader: claim_of(entries[0]) for reader, entries in replies if entries}


async def _execute(pipe: redis.asyncio.client.Pipeline) -> list[Entries | None]:
    """Return the replies, None for an error: the next round reads it, or the result has it."""
    execute: Callable[..., Any] = pipe.execute
    try:
        replies = await execute(raise_on_error=False)
    except (RedisError, OSError):
        return []
    return [reply if isinstance(reply, list) else None for reply in replies]
