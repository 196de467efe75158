"""Which jobs wait for a limit, and until when: the broker knows where the record says queued."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import redis

from headgate.producer.admin import waiting
from headgate.producer.admin.waiting import IDS_PER_CALL, Wait
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.job.result import Status

Waits = Callable[[Sequence[str]], Mapping[str, Wait]]
"""Those of these jobs that wait for a limit."""

WAITING: tuple[Status, ...] = ("queued", "deferred")
"""What the record says of jobs that may wait in a room of the governor."""


def nobody_waits(_ids: Sequence[str]) -> Mapping[str, Wait]:
    """No job waits: where the broker is not asked."""
    return {}


def waits_on(client: redis.Redis, keys: Keys) -> Waits:
    """Asks this broker, up to 200 jobs in one round trip; one that does not answer knows nobody.

    What the record says is told without it, too.
    """

    def ask(ids: Sequence[str]) -> Mapping[str, Wait]:
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

    return ask
