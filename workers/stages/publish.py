"""Publish: the result is where everybody looks for it, and those who wait are told."""

from __future__ import annotations

import orjson

from shared import scripts
from shared.envelope import Result
from shared.keys import Keys
from shared.results import celery_record
from shared.scripts import Entry
from workers.lane import Lane


class Publish:
    """Stores results in the form of Celery's backend for `ttl_s` seconds, and publishes them."""

    def __init__(self, lane: Lane, keys: Keys, *, ttl_s: int) -> None:
        self._lane = lane
        self._keys = keys
        self._ttl_s = ttl_s

    async def publish(self, result: Result, answer: Entry | None = None) -> None:
        """`AsyncResult(id)` has the result, those who wait are told, and its answer is kept."""
        await self._lane.run(
            scripts.publish(
                self._keys,
                job_id=result.id,
                record=celery_record(result),
                ttl_s=self._ttl_s,
                answer=answer,
            )
        )

    async def again(self, encoded: str | None) -> Result | None:
        """The result of a job that ended before is there, also after a crash just before this."""
        if encoded is None:
            return None
        result = Result.from_json(orjson.loads(encoded))
        await self.publish(result)
        return result
