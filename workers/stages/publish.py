"""Publish: store the result where everybody looks for it, and notify those who wait."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headgate.shared.broker import jobs
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.job.result import Result
from headgate.shared.job.result_text import decode_result
from headgate.workers.clients.memory_bounds import MB, MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.cache")

MOST_BYTES = 300 * MB
"""Larger records are not sent to Redis. It takes values of 512 MB, and breaks off the connection,
and with it the commands of other jobs, at a larger one."""


class Publish:
    """Stores results in the form of Celery's backend for `ttl_s` seconds, and publishes them."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, *, ttl_s: int, bounds: MemoryBounds,
        most_bytes: int = MOST_BYTES,
    ) -> None:  # fmt: skip
        self._batcher = batcher
        self._keys = keys
        self._ttl_s = ttl_s
        self._bounds = bounds
        self._most_bytes = most_bytes
        self._logged = False

    async def publish(
        self,
        result: Result,
        answers: Sequence[CacheWrite] = (),
        *,
        group: str | None = None,
        streamed: bool = False,
    ) -> None:
        """Store the result for `AsyncResult(id)`, notify those who wait, and cache its answers.

        `group`: the Celery group of the job. `streamed`: its pieces are needed for minutes only.
        A record that Redis might refuse is in the database only, where waiters look once a second.
        """
        record = celery_record(result)
        if len(record) > self._most_bytes:
            log.warning("job %s: its result of %d MB is in the database only, not in Redis",
                        result.id, len(record) // MB)  # fmt: skip
            return
        waiting = await self._batcher.run(
            jobs.publish(
                self._keys,
                job_id=result.id,
                record=record,
                ttl_s=self._ttl_s,
                results_bytes=self._bounds.results_bytes,
                group=group,
                streamed=streamed,
                answers=answers,
                cache_bytes=self._bounds.cache_bytes,
            )
        )
        if waiting < 0 and not self._logged:
            self._logged = True
            log.error("no answer is cached, or results are not counted: %s, %s or a key beside it "
                      "is broken; remove it with `headgate cache clear --yes`, or delete it",
                      self._keys.cached(), self._keys.results())  # fmt: skip

    async def again(self, encoded: str | None, group: str | None = None) -> Result | None:
        """Publish the result of a job that ended before: a crash may have come before that.

        `encoded`: its JSON on record; None where it has expired.
        """
        if encoded is None:
            return None
        result = decode_result(encoded)
        await self.publish(result, group=group)
        return result
