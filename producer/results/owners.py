"""Finds whose jobs these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine, select

from headgate.producer.results.open_jobs import IDS_PER_QUERY
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import audit, jobs


class JobOwner(NamedTuple):
    """The tenant of a job, and its user if it has one."""

    tenant: str
    user: str | None


def owners(engine: Engine, ids: Sequence[str]) -> dict[str, JobOwner]:
    """Return the owner of each job by its id, also of jobs that were pruned."""
    found: dict[str, JobOwner] = {}
    with reading(engine) as connection:
        for first in range(0, len(ids), IDS_PER_QUERY):
            left = set(ids[first : first + IDS_PER_QUERY])
            for table, id_column in ((jobs, jobs.c.id), (audit, audit.c.job_id)):
                query = select(id_column, table.c.tenant, table.c.user_id)
                rows = connection.execute(query.where(id_column.in_(left))) if left else ()
                found.update((row[0], JobOwner(row[1], row[2])) for row in rows)
                left -= found.keys()
    return found
