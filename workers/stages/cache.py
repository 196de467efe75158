"""Cache: answer a request with what an equal request of the same tenant was answered before.

`shared/cache/ttl.py` says how long an answer is kept. It is kept at least for the window in which
equal requests may still wait for it.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace

from redis.exceptions import ResponseError

from headgate.shared.broker import cache_index
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.job.request import Request
from headgate.workers.clients.delayed_report import DelayedReport, Report
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.stages.cache_entry import (
    CacheEntry,
    TooLargeToCache,
    Unreadable,
    decode,
    encode,
)

__all__ = ["Cache", "CacheEntry", "Question"]

log = logging.getLogger("headgate.cache")

WINDOW_S = 5
"""How long every answer is kept for jobs that asked the same while its call ran: double clicks."""

REPORT_S = 0.2
"""How often use is reported to the cache index: a hit costs no round trip of its own."""


@dataclass(slots=True)
class Question:
    """A request as the cache sees it. What is worked out of it, it keeps: 8 us of each job.

    `sample`: see `Envelope.sample`. `ttl_s`: how long its answer is kept; None until it is known.
    """

    request: Request
    sample: int = 1
    ttl_s: int | None = None
    _names: dict[str, str] = field(default_factory=dict)

    def name(self, model: str) -> str:
        """Return the fingerprint under which the answer of this model is kept."""
        found = self._names.get(model)
        if found is None:
            found = self._names[model] = fingerprint(self.request, model, self.sample)
        return found


class Cache:
    """The answers in Redis, each for its lifetime. `policy`: the rules in force."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, *, policy: CachePolicy,
        clock_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self.policy = policy
        self._batcher = batcher
        self._keys = keys
        self._clock_ms = clock_ms
        self._used: dict[str, None] = {}
        self._missing: dict[str, None] = {}
        self._counts = [0, 0, 0, 0]
        self._report = DelayedReport(REPORT_S, self._reports)

    def follow(self, catalog: Catalog) -> None:
        """Use the cache rules of this catalog from now on."""
        self.policy = replace(self.policy, rules=CacheRuleIndex.of(catalog.cache.rules))

    async def recall(
        self, question: Question, model: str, chain: Callable[[], Set[str]] = frozenset
    ) -> CacheEntry | None:
        """Return what `model` answered to an equal request, or None.

        `chain` returns the models that may answer this request. An entry with `shared` set serves
        only requests that may share a call; one with `window_only` set, only those whose chain has
        the model that answered. An entry that cannot be read is a miss and is removed.
        """
        if self._ttl_s(question) == 0:
            return None
        name = question.name(model)
        try:
            found = await self._batcher.send("GET", self._keys.cache(name))
            entry = None if found is None else decode(found, self._clock_ms())
        except (ResponseError, Unreadable) as error:
            why = error.args[0] if isinstance(error, Unreadable) else "it is not a string"
            log.warning("cache entry %s cannot be read (%s): it is removed", name, why)
            await self._batcher.run(cache_index.drop(self._keys, [name]))
            entry = None
        if entry is not None and entry.shared and not question.request.share:
            entry = None
        if entry is not None and entry.window_only and entry.model not in chain():
            entry = None
        self._count(name, entry)
        return entry

    def writes(self, question: Question, entry: CacheEntry, asked: str) -> tuple[CacheWrite, ...]:
        """Return the writes with which equal requests find the answer; none if it is not cached.

        An answer above 32 MB is not. This may run in a thread, because it compresses the answer.
        They go out together with the result. One serves requests to the model that answered,
        for its lifetime. If another model was `asked`, a second one serves those who wait for that.
        """
        ttl_s, request = self._ttl_s(question), question.request
        if ttl_s == 0:
            return ()
        now_ms = self._clock_ms()
        entry = replace(entry, until_ms=now_ms + ttl_s * 1000)
        name = question.name(entry.model)
        try:
            writes = [_write(request, name, entry.model, entry, max(ttl_s, WINDOW_S))]
        except TooLargeToCache:
            return ()
        if entry.model != asked and request.share:
            name, moment = question.name(asked), replace(entry, window_only=True)
            writes.append(_write(request, name, asked, moment, WINDOW_S))
        return tuple(writes)

    def _ttl_s(self, question: Question) -> int:
        """Return how long to keep the answer; 0: not at all."""
        if question.ttl_s is None:
            question.ttl_s = self.policy.lifetime(question.request).ttl_s
        return question.ttl_s

    def close(self) -> None:
        """Report nothing more; the uses of the last moment are not counted."""
        self._report.close()

    def _count(self, name: str, entry: CacheEntry | None) -> None:
        counts = self._counts
        if entry is None:
            counts[1] += 1
            self._missing[name] = None
        else:
            counts[2 if entry.shared else 0] += 1
            counts[3] += entry.cost_pico_usd or 0
            self._used[name] = None
            self._missing.pop(name, None)
        self._report.schedule()

    def _reports(self) -> Iterator[Report]:
        if self._batcher.closing:
            return
        hits, misses, shared, saved = self._counts
        counts = cache_index.CacheCounts(
            hits, misses, shared, saved, [*self._used], [*self._missing]
        )
        self._counts, self._used, self._missing = [0, 0, 0, 0], {}, {}
        command = cache_index.count_uses(self._keys, secrets.token_hex(8), counts)
        yield self._batcher.run(command)


def _write(request: Request, name: str, model: str, entry: CacheEntry, ttl_s: int) -> CacheWrite:
    return CacheWrite(name, encode(entry), ttl_s * 1000, request.tenant, model)
