"""The keys that this process has read from the database, for a few seconds each.

A revoked key is useless within FRESH_S seconds in every process. While the database is away, keys
that were good before stay good for STALE_S seconds at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from headgate.producer.callers.keys import GatewayKey
from headgate.shared.errors import Unreachable

log = logging.getLogger("headgate.gateway")

FRESH_S = 5.0
"""How long what was read of a key is used without another look."""

AGAIN_S = FRESH_S / 2
"""A key in use is read again at this age, so that its calls do not wait for the database."""

STALE_S = 600.0
"""How long a key that was seen stays good while the database does not answer."""

PATIENCE_S = 2.0
"""How long a call with a key that was seen waits for a slow database."""

MAX_KEYS = 10_000
THREADS = 2
"""Threads that read keys which were seen before, and as many for others, which may be many."""

LoadKey = Callable[[str], GatewayKey | None]
"""Reads the key with a secret of this SHA-256 from the database. It blocks."""


@dataclass(slots=True)
class _Seen:
    key: GatewayKey
    read_at_s: float


class KnownKeys:
    """Reads keys from the database in threads, one read at a time for each key.

    `load` blocks; it raises Unreachable if the database does not answer.
    """

    def __init__(self, load: LoadKey, clock: Callable[[], float]) -> None:
        self._load, self._clock = load, clock
        self._of_seen = ThreadPoolExecutor(THREADS, "gateway keys")
        self._of_others = ThreadPoolExecutor(THREADS, "unknown gateway keys")
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._reads: dict[str, asyncio.Task[GatewayKey | None]] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._seen

    async def get(self, digest: str) -> GatewayKey | None:
        """Return the key of this digest; None if there is none. Raises Unreachable."""
        seen = self._seen.get(digest)
        if seen is None:
            return await asyncio.shield(self._read(digest))
        age_s = self._clock() - seen.read_at_s
        if age_s >= AGAIN_S:
            reading = self._read(digest)
            if age_s >= FRESH_S:
                return await self._read_or_stale(reading, seen)
        return seen.key

    async def _read_or_stale(
        self, reading: asyncio.Task[GatewayKey | None], seen: _Seen
    ) -> GatewayKey | None:
        is_usable = self._clock() - seen.read_at_s < STALE_S
        try:
            async with asyncio.timeout(PATIENCE_S if is_usable else None):
                return await asyncio.shield(reading)
        except (Unreachable, TimeoutError):
            if not is_usable:
                raise
            return seen.key

    def _read(self, digest: str) -> asyncio.Task[GatewayKey | None]:
        reading = self._reads.get(digest)
        if reading is None:
            reading = self._reads[digest] = asyncio.ensure_future(self._read_once(digest))
            reading.add_done_callback(_retrieved)
        return reading

    async def _read_once(self, digest: str) -> GatewayKey | None:
        began_s = self._clock()
        threads = self._of_seen if digest in self._seen else self._of_others
        try:
            found = await asyncio.get_running_loop().run_in_executor(threads, self._load, digest)
        finally:
            del self._reads[digest]
        self._seen.pop(digest, None)
        if found is not None:
            self._seen[digest] = _Seen(found, began_s)
            while len(self._seen) > MAX_KEYS:
                self._seen.popitem(last=False)
        return found

    def close(self) -> None:
        """End the threads; what they read is thrown away."""
        for threads in (self._of_seen, self._of_others):
            threads.shutdown(wait=False, cancel_futures=True)


def _retrieved(reading: asyncio.Task[GatewayKey | None]) -> None:
    """Look at the error of a read that nobody waits for, so that asyncio does not log it."""
    if not reading.cancelled() and (error := reading.exception()) is not None:
        log.debug("a gateway key was not read: %s", type(error).__name__)
