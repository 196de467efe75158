"""Publish: store the result where everybody looks for it, and notify those who wait."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headgate.shared.broker import jobs
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.broker.script import Command
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import ErrorReport, Result
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

    def command(
        self,
        result: Result,
        envelope: Envelope,
        answers: Sequence[CacheWrite] = (),
        *,
        children: Sequence[Any] = (),
    ) -> Command[int] | None:
        """Return the call that stores the result for `AsyncResult(id)`, and publishes it.

        `children`: the tasks that Celery has sent at the job's end. Return None for a record that
        Redis might refuse. It is in the database only, where waiters look once a second.
        """
        record = celery_record(
            result, group=envelope.group, parent_id=envelope.parent_id, children=children
        )
        if len(record) > self._most_bytes:
            log.warning("job %s: its result of %d MB is in the database only, not in Redis",
                        result.id, len(record) // MB)  # fmt: skip
            return None
        return jobs.publish(
            self._keys,
            job_id=result.id,
            record=record,
            ttl_s=0 if envelope.ignore_result else self._ttl_s,
            results_bytes=self._bounds.results_bytes,
            group=envelope.group,
            streamed=envelope.request.stream,
            answers=answers,
            cache_bytes=self._bounds.cache_bytes,
        )

    async def publish(
        self, result: Result, envelope: Envelope, answers: Sequence[CacheWrite] = ()
    ) -> None:
        """Store the result for `AsyncResult(id)`, notify those who wait, and cache its answers."""
        command = self.command(result, envelope, answers)
        if command is None:
            return
        waiting = await self._batcher.run(command)
        if waiting < 0 and not self._logged:
            self._logged = True
            log.error("no answer is cached, or results are not counted: %s, %s or a key beside it "
                      "is broken; remove it with `headgate cache clear --yes`, or delete it",
                      self._keys.cached(), self._keys.results())  # fmt: skip

    async def refuse(self, result: Result, envelope: Envelope, why: str) -> None:
        """Let the job be FAILURE for Celery, with this reason; the record keeps its result."""
        error = ErrorReport("internal", why, False)
        refused = replace(result, status="failed", error=error)
        await self.publish(refused, envelope)
