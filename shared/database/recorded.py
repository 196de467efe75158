"""Reads results from the record for programs that know only the ids of their jobs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import jobs
from headgate.shared.job.result import ENDED, Result
from headgate.shared.job.result_text import decode_result

IDS_PER_QUERY = 500


def recorded_results(engine: Engine, ids: Sequence[str]) -> dict[str, Result]:
    """Return, by id, the results of jobs that have ended; leave out what the record has not."""
    found: dict[str, Result] = {}
    columns = (jobs.c.id, jobs.c.result)
    with reading(engine) as connection:
        for first in range(0, len(ids), IDS_PER_QUERY):
            some = jobs.c.id.in_(ids[first : first + IDS_PER_QUERY])
            ended = jobs.c.status.in_(sorted(ENDED)), jobs.c.result.is_not(None)
            for row in connection.execute(select(*columns).where(some, *ended)):
                found[row.id] = decode_result(row.result)
    return found
