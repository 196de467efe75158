"""Reopens a job that was given up: it is queued again under its own id.

The ledger keeps all attempts. The audit line of the first end is deleted; the next end writes a
new one, which counts all attempts. The new fence keeps out workers that still run the old claim.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, delete, select, update

from headgate.shared.broker.queues import message
from headgate.shared.database.engine import writing
from headgate.shared.database.tables import audit, jobs
from headgate.shared.database.usage_rollup import unsum
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.encoding import loads
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import ENDED


@dataclass(frozen=True, slots=True)
class NotReopened:
    """The job stays as it is; `reason` says why, to be read after the job's id."""

    reason: str


def reopen(engine: Engine, job_id: str, *, gave_up: bool) -> bytes | NotReopened | None:
    """Reopen a job that was given up; return its new message.

    Return None for a job without a row, or one that has not ended: its old message is still
    valid. `gave_up`: whether the dead letter is of a job that was given up.
    """
    with writing(engine) as connection:
        query = select(jobs).where(jobs.c.id == job_id).with_for_update()
        row = connection.execute(query).first()
        line = select(audit.c.job_id).where(audit.c.job_id == job_id)
        if row is None and connection.scalar(line) is not None:
            return NotReopened("was deleted (HEADGATE_KEEP_DAYS); submit it again as a new job")
        if row is None or row.status not in ENDED:
            return None
        if not gave_up or row.status != "failed":
            return NotReopened(f"has ended as {row.status}")
        if row.deadline_at_ms <= now_ms():
            deadline = rfc3339(row.deadline_at_ms)
            return NotReopened(f"had its deadline at {deadline}; submit it again as a new job")
        if row.envelope is None:
            remedy = "submit it again as a new job"
            return NotReopened(f"has no prompt any more; {remedy}")
        try:
            envelope = Envelope.decode(loads(row.envelope))
        except UnreadableMessage as error:
            return NotReopened(f"has an unreadable row: {error.reason}")
        envelope = envelope.model_copy(update={"forgiven_fence": row.fence})
        encoded = envelope.encode()
        connection.execute(
            update(jobs)
            .where(jobs.c.id == job_id)
            .values(
                status="queued", envelope=encoded.decode(), result=None, finished_at_ms=None,
                fence=row.fence + 1, worker=None, cancel_wanted=False, retry_at_ms=None,
            )
        )  # fmt: skip
        connection.execute(delete(audit).where(audit.c.job_id == job_id))
        unsum(connection, row.finished_at_ms)
    return message(envelope, encoded)
