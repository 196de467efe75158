"""What the waiting jobs of a batch wait for: the most common reason among some of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from headgate.producer.batch.rows import BatchRows
from headgate.producer.waits.find import FindWaits
from headgate.shared.job.waiting_for import WaitingFor

SAMPLED = 200
"""How many open jobs of a batch are looked at: one call of Redis."""


@dataclass(frozen=True, slots=True)
class BatchWait:
    """The most common reason, and how many of the waiting jobs that were looked at have it."""

    waiting_for: WaitingFor
    jobs: int
    looked_at: int

    def as_json(self) -> dict[str, Any]:
        """Return the fields of `waiting_for`, with `jobs` and `looked_at`."""
        return {**self.waiting_for.as_json(), "jobs": self.jobs, "looked_at": self.looked_at}


def wait_of(record: BatchRows, batch_id: str, find_waits: FindWaits) -> BatchWait | None:
    """Return what the jobs of the batch wait for; None if none of those looked at waits.

    Of jobs with the same reason, the time of the one that starts last counts.
    """
    waiting = record.waiting_jobs(batch_id, SAMPLED)
    found = list(find_waits(waiting).values()) if waiting else []
    if not found:
        return None
    counts = Counter((one.kind, one.name) for one in found)
    reason, n = counts.most_common(1)[0]
    alike = [one for one in found if (one.kind, one.name) == reason]
    return BatchWait(max(alike, key=lambda one: one.until or ""), n, len(found))
