"""Read jobs and their results from the database, which is the truth however a caller asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, Row, select

from headgate.producer.errors import ResultExpired, UnknownJob
from headgate.producer.results.open_jobs import IDS_PER_QUERY, OPEN_JOB_COLUMNS, open_jobs
from headgate.producer.results.pruned import pruned
from headgate.producer.waits.find import FindWaits, no_waits
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import jobs
from headgate.shared.errors import HeadgateError
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import ENDED, Result, Status
from headgate.shared.job.result_text import decode_result
from headgate.shared.job.waiting_for import WaitingFor

DEFERS = frozenset({"limit", "budget", "gate", "paused", "model_down", "due"})
"""What a deferred job waits for; a job that waits for anything else is queued."""

REQUESTS_PER_QUERY = 20
"""Requests that are read at once. Each may have 10 MB."""

STATUS_COLUMNS = (
    *OPEN_JOB_COLUMNS,
    jobs.c.model,
    jobs.c.batch_id,
    jobs.c.retry_at_ms,
    jobs.c.finished_at_ms,
)


def read(engine: Engine, job_id: str, find_waits: FindWaits = no_waits) -> Result:
    """Return the result as it is now, whether the job has ended or not.

    `find_waits` finds out what a job waits for. If that is a limit or the like, its status is
    "deferred". Raises UnknownJob and ResultExpired.
    """
    found = read_many(engine, [job_id], find_waits)[job_id]
    if isinstance(found, HeadgateError):
        raise found
    return found


def read_many(
    engine: Engine, ids: Sequence[str], find_waits: FindWaits = no_waits
) -> dict[str, Result | HeadgateError]:
    """Return, by id, the results as they are now, as `read` does.

    The value is ResultExpired for an expired result, and UnknownJob for an unknown id.
    """
    found: dict[str, Result | HeadgateError] = {}
    columns = (*STATUS_COLUMNS, jobs.c.result)
    for first in range(0, len(ids), IDS_PER_QUERY):
        chunk = ids[first : first + IDS_PER_QUERY]
        with reading(engine) as connection:
            rows = connection.execute(select(*columns).where(jobs.c.id.in_(chunk))).all()
            missing = sorted(set(chunk) - {row.id for row in rows})
            if missing:
                gone = pruned(connection, missing)
                found.update((one, gone.get(one) or UnknownJob(one)) for one in missing)
            waiting = open_jobs(connection, rows)
            marks = _metadata_of(connection, [row.id for row in rows if row.status not in ENDED])
        waits = find_waits(waiting) if waiting else {}
        for row in rows:
            found[row.id] = _as_it_is(row, waits.get(row.id), marks.get(row.id))
    return found


def end_or_wait(
    engine: Engine, job_id: str, find_waits: FindWaits = no_waits
) -> Result | WaitingFor | None:
    """Return the result if the job has ended, else what it waits for; None if it runs.

    It does not read the request, which may be long. Raises UnknownJob and ResultExpired.
    """
    with reading(engine) as connection:
        columns = (*STATUS_COLUMNS, jobs.c.result)
        row = connection.execute(select(*columns).where(jobs.c.id == job_id)).first()
        if row is None:
            raise pruned(connection, [job_id]).get(job_id) or UnknownJob(job_id)
        waiting = open_jobs(connection, [row])
    if row.status in ENDED:
        return _ended(row)
    return find_waits(waiting).get(job_id) if waiting else None


def status(engine: Engine, job_id: str, find_waits: FindWaits = no_waits) -> Status:
    """Return the status now, also if the result has expired; raise UnknownJob."""
    with reading(engine) as connection:
        row = connection.execute(select(*STATUS_COLUMNS).where(jobs.c.id == job_id)).first()
        if row is None:
            if (gone := pruned(connection, [job_id]).get(job_id)) is not None:
                return gone.status
            raise UnknownJob(job_id)
        waiting = open_jobs(connection, [row])
    found: Status = row.status
    wait = find_waits(waiting).get(job_id) if waiting else None
    return found if wait is None else status_of(row, wait)


def look(engine: Engine, ids: Sequence[str]) -> dict[str, Result | HeadgateError]:
    """Return, by id, the results of jobs that have ended; leave out those that have not.

    The value is ResultExpired for an expired result, and UnknownJob for an unknown id.
    """
    found: dict[str, Result | HeadgateError] = {}
    columns = (jobs.c.id, jobs.c.status, jobs.c.finished_at_ms, jobs.c.result)
    with reading(engine) as connection:
        for first in range(0, len(ids), IDS_PER_QUERY):
            chunk = ids[first : first + IDS_PER_QUERY]
            rows = connection.execute(select(*columns).where(jobs.c.id.in_(chunk))).all()
            missing = set(chunk)
            for row in rows:
                missing.discard(row.id)
                if row.status in ENDED:
                    found[row.id] = _as_it_is(row, None)
            if missing:
                gone = pruned(connection, sorted(missing))
                found.update((one, gone.get(one) or UnknownJob(one)) for one in missing)
    return found


def without_answer(row: Row[*tuple[Any, ...]], metadata: dict[str, Any] | None = None) -> Result:
    """Return the result of a job as far as its row says: its status and its times."""
    started, submitted = row.started_at_ms, row.submitted_at_ms
    return Result(
        id=row.id,
        status=row.status,
        model=row.model,
        batch_id=row.batch_id,
        submitted_at=rfc3339(submitted),
        started_at=rfc3339(started),
        finished_at=rfc3339(row.finished_at_ms),
        queued_ms=None if started is None else max(0, started - submitted),
        retry_at=rfc3339(row.retry_at_ms) if row.status == "deferred" else None,
        trace_id=row.id.replace("-", ""),
        metadata=metadata or {},
    )


def status_of(row: Row[*tuple[Any, ...]], wait: WaitingFor) -> Status:
    """Return the status of a job that waits: Redis may know more than the record, or less."""
    is_later = row.status == "deferred" and (row.retry_at_ms or 0) > now_ms()
    return "deferred" if wait.kind in DEFERS or is_later else "queued"


def waiting_fields(row: Row[*tuple[Any, ...]], wait: WaitingFor) -> dict[str, Any]:
    """Return the fields of a job that waits: status, retry_at and waiting_for."""
    status, retry_at = status_of(row, wait), None
    if status == "deferred":
        retry_at = wait.until if wait.kind in DEFERS else rfc3339(row.retry_at_ms)
    return {"status": status, "retry_at": retry_at, "waiting_for": wait}


def known(engine: Engine, ids: Iterable[str]) -> set[str]:
    """Return which of the jobs are on record: for the `unsure_ids` of a SubmitInterrupted."""
    asked, found = list(ids), set[str]()
    with reading(engine) as connection:
        for first in range(0, len(asked), IDS_PER_QUERY):
            chunk = asked[first : first + IDS_PER_QUERY]
            found.update(connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(chunk))))
    return found


def _as_it_is(
    row: Row[*tuple[Any, ...]], wait: WaitingFor | None, metadata: dict[str, Any] | None = None
) -> Result | HeadgateError:
    """Return the result of the row, or why there is none any more."""
    if row.status in ENDED:
        try:
            return _ended(row)
        except ResultExpired as error:
            return error
    result = without_answer(row, metadata)
    return result if wait is None else replace(result, **waiting_fields(row, wait))


def _ended(row: Row[*tuple[Any, ...]]) -> Result:
    if row.result is None:
        raise ResultExpired(row.id, row.status, rfc3339(row.finished_at_ms))
    return decode_result(row.result)


def _metadata_of(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the metadata of jobs that have not ended: of few at once, as prompts may be long."""
    found: dict[str, dict[str, Any]] = {}
    for first in range(0, len(ids), REQUESTS_PER_QUERY):
        part = ids[first : first + REQUESTS_PER_QUERY]
        query = select(jobs.c.id, jobs.c.envelope).where(jobs.c.id.in_(part))
        found.update((row.id, _metadata(row.envelope)) for row in connection.execute(query))
    return found


def _metadata(encoded: str | None) -> dict[str, Any]:
    if not encoded:
        return {}
    metadata: dict[str, Any] = orjson.loads(encoded).get("request", {}).get("metadata") or {}
    return metadata
