"""Finds what waiting jobs wait for: Redis knows it, the database only says that they wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import redis

from headgate.producer.waits.decide import OpenJob, waiting_for
from headgate.producer.waits.view import IDS_PER_CALL, Seen, view
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.job.waiting_for import WaitingFor

FindWaits = Callable[[Sequence[OpenJob]], Mapping[str, WaitingFor]]
"""Returns, by id, what those of these jobs wait for that no worker runs."""

UNLISTED_S = 3.0
"""How long it is remembered whether workers of the release before run: finding them scans Redis."""


def no_waits(_jobs: Sequence[OpenJob]) -> Mapping[str, WaitingFor]:
    """Return no waits, for callers that do not ask Redis."""
    return {}


def living_workers(client: redis.Redis, keys: Keys) -> int:
    """Return how many workers run; a killed worker counts until its sign expires."""
    return sum(1 for _ in client.scan_iter(match=keys.worker("*"), count=5_000))


class WaitFinder:
    """Asks Redis, for up to 200 jobs in one round trip. Many threads may share one.

    If Redis does not answer, it returns what it has found so far: the status from the database is
    right without it.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._redis, self._keys = client, keys
        self._unlisted = (-UNLISTED_S, False)

    def __call__(self, jobs: Sequence[OpenJob]) -> Mapping[str, WaitingFor]:
        """Return, by id, what these jobs wait for."""
        found: dict[str, WaitingFor] = {}
        try:
            for first in range(0, len(jobs), IDS_PER_CALL):
                found.update(self._page(jobs[first : first + IDS_PER_CALL]))
        except redis.RedisError:
            return found
        return found

    def _page(self, jobs: Sequence[OpenJob]) -> Mapping[str, WaitingFor]:
        seen = script.run(self._redis, view(self._keys, ids=[job.id for job in jobs]))
        found = _reasons(jobs, seen)
        # A worker of the release before lives without saying what it serves.
        is_alone = any(one.kind in ("no_worker", "no_key") for one in found.values())
        if is_alone and self._has_unlisted(seen):
            found = _reasons(jobs, replace(seen, unlisted=True))
        return found

    def _has_unlisted(self, seen: Seen) -> bool:
        at, known = self._unlisted
        if time.monotonic() - at >= UNLISTED_S:
            known = living_workers(self._redis, self._keys) > len(seen.workers)
            self._unlisted = time.monotonic(), known
        return known


def _reasons(jobs: Sequence[OpenJob], seen: Seen) -> dict[str, WaitingFor]:
    reasons = ((job.id, waiting_for(job, seen)) for job in jobs)
    return {job_id: one for job_id, one in reasons if one is not None}
