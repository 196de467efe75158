"""A job that gave up is opened again by an operator: queued under its own id, to end anew.

The ledger keeps all that was tried. The audit line goes with the end that it told of; the next end
writes another one, which counts all attempts. Fencing keeps out whoever worked on it before.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from sqlalchemy import Engine, delete, select, update

from headgate.shared.broker.queues import message
from headgate.shared.database.engine import writing
from headgate.shared.database.tables import audit, jobs
from headgate.shared.database.usage_rollup import unsum
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import ENDED


@dataclass(frozen=True, slots=True)
class NotReopened:
    """The job stays as it is; `words` say why, after its name."""

    words: str


def reopen(engine: Engine, job_id: str, *, gave_up: bool) -> bytes | NotReopened | None:
    """The message of a job that gave up and is queued again; None where the record has no say.

    That is so for a job that has no row, or has not ended: its old message serves.
    """
    with writing(engine) as connection:
        query = select(jobs).where(jobs.c.id == job_id).with_for_update()
        row = connection.execute(query).first()
        if row is None or row.status not in ENDED:
            return None
        if not gave_up or row.status != "failed":
            return NotReopened(f"has ended as {row.status}")
        if row.deadline_at_ms <= now_ms():
            return NotReopened(f"was to be done by {rfc3339(row.deadline_at_ms)}; submit it anew")
        if row.envelope is None:
            return NotReopened("has lost its words (HEADGATE_RESULT_TTL_S); submit it anew")
        try:
            envelope = Envelope.decode(orjson.loads(row.envelope))
        except UnreadableMessage as error:
            return NotReopened(f"cannot be read on record: {error.reason}")
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
