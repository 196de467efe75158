"""Reopens jobs that have failed or were given up: each is queued again under its own id.

The ledger keeps all attempts. The audit line of the first end is deleted; the next end writes a
new one, which counts all attempts. The new fence keeps out workers that still run the old claim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Row, delete, select, update

from headgate.shared.broker.queues import message
from headgate.shared.database.engine import writing
from headgate.shared.database.tables import audit, jobs
from headgate.shared.database.usage_rollup import unsum
from headgate.shared.errors import InvalidRequest, UnreadableMessage
from headgate.shared.job.encoding import loads
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.request import MAX_DEADLINE_S
from headgate.shared.job.result import ENDED, Status

RETRIED: tuple[Status, ...] = ("failed", "expired")
"""How a job has ended that may be retried. A cancelled job was not wanted any more."""

_AS_NEW = "submit it again as a new job"


@dataclass(frozen=True, slots=True)
class NotReopened:
    """The job stays as it is; `reason` says why, to be read after the job's id."""

    reason: str


class Reopened(NamedTuple):
    """A job that is on record as queued again, as it is sent: envelope, JSON and ticket."""

    envelope: Envelope
    encoded: bytes
    ticket: str


Renew = Callable[[Envelope], tuple[Envelope, str]]
"""Returns the envelope for the new try and its ticket; raises InvalidRequest if none can be."""


def reopen(engine: Engine, job_id: str, *, gave_up: bool) -> bytes | NotReopened | None:
    """Reopen a job that was given up; return its new message.

    Return None for a job without a row, or one that has not ended: its old message is still
    valid. `gave_up`: whether the dead letter is of a job that was given up.
    """
    with writing(engine) as connection:
        query = select(jobs).where(jobs.c.id == job_id).with_for_update()
        row = connection.execute(query).first()
        if row is None and _was_deleted(connection, [job_id]):
            return NotReopened(f"was deleted (HEADGATE_KEEP_DAYS); {_AS_NEW}")
        if row is None or row.status not in ENDED:
            return None
        if not gave_up or row.status != "failed":
            return NotReopened(f"has ended as {row.status}")
        if row.deadline_at_ms <= now_ms():
            deadline = rfc3339(row.deadline_at_ms)
            return NotReopened(f"had its deadline at {deadline}; {_AS_NEW}")
        again = _reopen(connection, row, lambda envelope: (envelope, ""))
    return again if isinstance(again, NotReopened) else message(again.envelope, again.encoded)


def reopen_ended(
    engine: Engine, ids: Sequence[str], renew: Renew
) -> dict[str, Reopened | NotReopened]:
    """Reopen jobs that failed or expired, in one transaction; return what became of each.

    Pass some hundreds of ids at most. Their deadlines count from now on anew.
    """
    found: dict[str, Reopened | NotReopened] = {}
    with writing(engine) as connection:
        # In the order of their ids, so that two that retry the same jobs do not deadlock.
        query = select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
        rows = {row.id: row for row in connection.execute(query).all()}
        deleted = _was_deleted(connection, [one for one in ids if one not in rows])
        for job_id in dict.fromkeys(ids):
            row = rows.get(job_id)
            if row is None and job_id in deleted:
                found[job_id] = NotReopened(f"was deleted (HEADGATE_KEEP_DAYS); {_AS_NEW}")
            elif row is None:
                found[job_id] = NotReopened("is not on record; ids are printed by submit and jobs")
            elif row.status not in ENDED:
                found[job_id] = NotReopened(f"has not ended: it is {row.status}")
            elif row.status not in RETRIED:
                found[job_id] = NotReopened(f"has ended as {row.status}; {_AS_NEW}")
            else:
                found[job_id] = _reopen(connection, row, renew)
    return found


def _was_deleted(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of these jobs without a row that have an audit line."""
    if not ids:
        return set()
    return set(connection.scalars(select(audit.c.job_id).where(audit.c.job_id.in_(ids))))


def with_new_deadline(envelope: Envelope) -> Envelope:
    """Return the envelope with as much time until its deadline as it had when it was submitted."""
    request = envelope.request
    passed_s = max(0, now_ms() - envelope.submitted_at_ms) / 1000
    deadline_s = min(MAX_DEADLINE_S, passed_s + request.deadline_s)
    changed = request.model_copy(update={"deadline_s": deadline_s})
    return envelope.model_copy(update={"request": changed})


def _reopen(
    connection: Connection, row: Row[*tuple[Any, ...]], renew: Renew
) -> Reopened | NotReopened:
    if row.envelope is None:
        return NotReopened(f"has no prompt any more; {_AS_NEW}")
    try:
        envelope, ticket = renew(Envelope.decode(loads(row.envelope)))
    except UnreadableMessage as error:
        return NotReopened(f"has an unreadable row: {error.reason}")
    except InvalidRequest as error:
        return NotReopened(f"cannot be run now: {error}")
    envelope = envelope.model_copy(update={"forgiven_fence": row.fence})
    encoded = envelope.encode()
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            status="queued", envelope=encoded.decode(), result=None, finished_at_ms=None,
            fence=row.fence + 1, worker=None, cancel_wanted=False, retry_at_ms=None,
            model=envelope.model, model_class=envelope.model_class,
            deadline_at_ms=envelope.deadline_at_ms,
        )
    )  # fmt: skip
    connection.execute(delete(audit).where(audit.c.job_id == row.id))
    unsum(connection, row.finished_at_ms)
    return Reopened(envelope, encoded, ticket)
