"""Publish: the result is where everybody looks for it, and those who wait are told."""

from __future__ import annotations

import asyncio

import orjson

from shared.envelope import Result
from shared.keys import Keys
from shared.results import celery_record
from workers.lane import Lane


class Publish:
    """Stores results in the form of Celery's backend for `ttl_s` seconds, and publishes them."""

    def __init__(self, lane: Lane, keys: Keys, *, ttl_s: int) -> None:
        self._lane = lane
        self._keys = keys
        self._ttl_s = ttl_s

    async def publish(self, result: Result) -> None:
        """`AsyncResult(id)` has the result; waiting programs have been woken."""
        key, record = self._keys.result(result.id), celery_record(result)
        await asyncio.gather(
            self._lane.send("SET", key, record, "EX", self._ttl_s),
            self._lane.send("PUBLISH", key, record),
        )

    async def again(self, result: str | None) -> None:
        """The result of a job that ended before is there, also after a crash just before this."""
        if result is not None:
            await self.publish(Result.from_json(orjson.loads(result)))
