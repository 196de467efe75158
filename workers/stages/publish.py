"""Publish: the result is where everybody looks for it, and those who wait are told."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import orjson

from headgate.shared.broker import jobs
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.job.result import Result
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.cache")


class Publish:
    """Stores results in the form of Celery's backend for `ttl_s` seconds, and publishes them."""

    def __init__(
        self, lane: RedisBatcher, keys: Keys, *, ttl_s: int, cache_bytes: int = 1 << 28
    ) -> None:
        self._lane = lane
        self._keys = keys
        self._ttl_s = ttl_s
        self._cache_bytes = cache_bytes
        self._told = False

    async def publish(self, result: Result, answers: Sequence[CacheWrite] = ()) -> None:
        """`AsyncResult(id)` has the result, those who wait are told, and its answers are kept."""
        waiting = await self._lane.run(
            jobs.publish(
                self._keys,
                job_id=result.id,
                record=celery_record(result),
                ttl_s=self._ttl_s,
                answers=answers,
                cache_bytes=self._cache_bytes,
            )
        )
        if waiting < 0 and not self._told:
            self._told = True
            log.error("answers are not kept: %s or a key beside it is broken; remove it with "
                      "`headgate cache clear --yes`", self._keys.cached())  # fmt: skip

    async def again(self, encoded: str | None) -> Result | None:
        """The result of a job that ended before is there, also after a crash just before this."""
        if encoded is None:
            return None
        result = Result.from_json(orjson.loads(encoded))
        await self.publish(result)
        return result
