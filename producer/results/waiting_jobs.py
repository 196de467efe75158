"""Find which jobs wait for a limit, and until when: Redis knows it, the database says "queued"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import redis

from headgate.producer.admin import waiting
from headgate.producer.admin.waiting import IDS_PER_CALL, Wait
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys

FindWaits = Callable[[Sequence[str]], Mapping[str, Wait]]
"""Returns, by id, those of these jobs that wait for a limit."""


def no_waits(_ids: Sequence[str]) -> Mapping[str, Wait]:
    """Return no waits, for callers that do not ask Redis."""
    return {}


def waits_from(client: redis.Redis, keys: Keys) -> FindWaits:
    """Return a function that asks Redis, for up to 200 jobs in one round trip.

    If Redis does not answer, the function returns what it has found so far: the status from the
    database is right without it.
    """

    def find(ids: Sequence[str]) -> Mapping[str, Wait]:
        found: dict[str, Wait] = {}
        try:
            for first in range(0, len(ids), IDS_PER_CALL):
                part = ids[first : first + IDS_PER_CALL]
                seen = script.run(client, waiting.view(keys, ids=part))
                waits = ((job_id, seen.wait_of(job_id)) for job_id in seen.places)
                found.update((job_id, wait) for job_id, wait in waits if wait is not None)
        except redis.RedisError:
            return found
        return found

    return find
