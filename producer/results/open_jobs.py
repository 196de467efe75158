"""Reads from the record what deciding needs to know of jobs that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from headgate.producer.waits.decide import LastFault, OpenJob
from headgate.shared.broker.queues import queue_name
from headgate.shared.database.tables import attempts, jobs
from headgate.shared.job.result import WAITING

IDS_PER_QUERY = 500

OPEN_JOB_COLUMNS = (
    jobs.c.id, jobs.c.status, jobs.c.priority, jobs.c.model_class, jobs.c.submitted_at_ms,
    jobs.c.started_at_ms,
)  # fmt: skip
"""The columns that `open_jobs` needs of each row."""


def open_jobs(connection: Connection, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[OpenJob]:
    """Return those of these jobs that wait, each with the fault of its last attempt."""
    waiting = [row for row in rows if row.status in WAITING]
    tried = [row.id for row in waiting if row.started_at_ms is not None]
    faults: dict[str, LastFault] = {}
    for first in range(0, len(tried), IDS_PER_QUERY):
        faults |= _faults(connection, tried[first : first + IDS_PER_QUERY])
    return [
        OpenJob(
            row.id, queue_name(row.priority, row.model_class), row.submitted_at_ms,
            faults.get(row.id),
        )
        for row in waiting
    ]  # fmt: skip


def _faults(connection: Connection, ids: Sequence[str]) -> dict[str, LastFault]:
    columns = (attempts.c.job_id, attempts.c.code, attempts.c.message, attempts.c.settled_at_ms)
    query = select(*columns).where(attempts.c.job_id.in_(ids), attempts.c.code.is_not(None))
    rows = connection.execute(query.order_by(attempts.c.job_id, attempts.c.fence, attempts.c.n))
    return {
        row.job_id: LastFault(row.code, row.message or "", row.settled_at_ms or 0) for row in rows
    }
