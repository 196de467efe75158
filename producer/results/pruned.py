"""Finds what is left of jobs and batches that were pruned: their audit lines."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from headgate.producer.errors import ResultExpired
from headgate.shared.database.tables import audit
from headgate.shared.job.ids import rfc3339


def pruned(connection: Connection, ids: Sequence[str]) -> dict[str, ResultExpired]:
    """Return, by id, the error that says how and when each of these jobs ended.

    Pass ids of jobs without a row, some hundreds at a time. Ids that never were jobs are left out.
    """
    columns = (audit.c.job_id, audit.c.status, audit.c.finished_at_ms)
    rows = connection.execute(select(*columns).where(audit.c.job_id.in_(ids)))
    return {
        row.job_id: ResultExpired(row.job_id, row.status, rfc3339(row.finished_at_ms))
        for row in rows
    }
