"""Cache: an equal request of the same tenant is answered from what was paid for before.

An answer is kept for as long as `shared/cache/ttl.py` says, and at least for the window in
which equal requests may still be waiting for it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Set
from dataclasses import replace

from redis.exceptions import ResponseError

from headgate.shared.broker import cache_index
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.job.request import Request
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.stages.cache_entry import CacheEntry, Unreadable, decode, encode

__all__ = ["Cache", "CacheEntry"]

log = logging.getLogger("headgate.cache")

WINDOW_S = 5
"""How long any answer is there for those who asked the same while its call ran: double clicks."""

TELL_S = 0.2
"""How often the books hear what was used: a hit costs no round trip of its own."""


class Cache:
    """Exact answers in Redis, each for its lifetime."""

    def __init__(
        self, lane: RedisBatcher, keys: Keys, *, keeping: CachePolicy, clock_ms: Callable[[], int]
    ) -> None:
        self.keeping = keeping
        self._lane = lane
        self._keys = keys
        self._clock_ms = clock_ms
        self._used: dict[str, None] = {}
        self._missing: dict[str, None] = {}
        self._counts = [0, 0, 0, 0]
        self._telling: asyncio.TimerHandle | None = None

    def follow(self, catalog: Catalog) -> None:
        """Lifetimes are those of this catalog's rules."""
        self.keeping = replace(self.keeping, rules=CacheRuleIndex.of(catalog.cache.rules))

    async def recall(
        self, request: Request, model: str, chain: Callable[[], Set[str]] = frozenset
    ) -> CacheEntry | None:
        """What `model` answered to an equal request, or None.

        `CacheEntry.shared`: its lifetime is over, or another model answered in its place: it serves those
        who may share a call, and whose `chain` has that model. What cannot be read is a miss, and
        is thrown away.
        """
        if not self.keeping.keeps(request):
            return None
        name = fingerprint(request, model)
        try:
            found = await self._lane.send("GET", self._keys.cache(name))
            kept = None if found is None else decode(found, self._clock_ms())
        except (ResponseError, Unreadable) as error:
            why = error.args[0] if isinstance(error, Unreadable) else "it is no string"
            log.warning("cache entry %s cannot be read (%s): it is removed, a miss", name, why)
            await self._lane.run(cache_index.drop(self._keys, [name]))
            kept = None
        if kept is not None and kept.shared and not request.share:
            kept = None
        if kept is not None and kept.window_only and kept.model not in chain():
            kept = None
        self._heard(name, kept)
        return kept

    def remembering(self, request: Request, kept: CacheEntry, asked: str) -> tuple[CacheWrite, ...]:
        """The answer as equal requests will find it; none where it is not kept.

        It is written together with the result: for those who ask the model that answered, for its
        lifetime; and for those who wait for the model that was asked, if that was another.
        """
        ttl_s = self.keeping.lifetime(request).ttl_s
        if ttl_s == 0:
            return ()
        now_ms = self._clock_ms()
        kept = replace(kept, until_ms=now_ms + ttl_s * 1000)
        answers = [self._entry(request, kept.model, kept, max(ttl_s, WINDOW_S))]
        if kept.model != asked and request.share:
            answers.append(self._entry(request, asked, replace(kept, window_only=True), WINDOW_S))
        return tuple(answers)

    def _entry(self, request: Request, model: str, kept: CacheEntry, ttl_s: int) -> CacheWrite:
        name = fingerprint(request, model)
        return CacheWrite(name, encode(kept), ttl_s * 1000, request.tenant, model)

    def _heard(self, name: str, kept: CacheEntry | None) -> None:
        """The books will soon know of it."""
        counts = self._counts
        if kept is None:
            counts[1] += 1
            self._missing[name] = None
        else:
            counts[2 if kept.shared else 0] += 1
            counts[3] += kept.cost_pico_usd or 0
            self._used[name] = None
            self._missing.pop(name, None)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if self._lane.closing:
            return
        hits, misses, shared, saved = self._counts
        told = cache_index.CacheCounts(hits, misses, shared, saved, [*self._used], [*self._missing])
        self._counts, self._used, self._missing = [0, 0, 0, 0], {}, {}
        call = secrets.token_hex(8)
        task = asyncio.ensure_future(self._lane.run(cache_index.count_uses(self._keys, call, told)))
        task.add_done_callback(_forget)


def _forget(task: asyncio.Task[int]) -> None:
    """What was not told is a figure for people; a closing lane is no fault of it."""
    if not task.cancelled():
        task.exception()
