"""Read jobs and their results from the database, which is the truth however a caller asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import orjson
from sqlalchemy import Engine, Row, Select, select, tuple_

from headgate.producer import moments
from headgate.producer.errors import ResultExpired, UnknownJob
from headgate.producer.moments import When
from headgate.producer.results.open_jobs import IDS_PER_QUERY, OPEN_JOB_COLUMNS, open_jobs
from headgate.producer.results.pruned import pruned
from headgate.producer.waits.find import FindWaits, no_waits
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import jobs
from headgate.shared.errors import HeadgateError, InvalidRequest
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.request import Priority
from headgate.shared.job.result import ENDED, WAITING, Result, Status
from headgate.shared.job.result_text import decode_result
from headgate.shared.job.waiting_for import WaitingFor, ms_of

STATUSES: tuple[Status, ...] = get_args(Status)
PAGE = 500
MAX_WAITING_ROWS = 20_000
"""How many waiting jobs are looked up on Redis at most to tell queued from deferred ones."""

MAX_LISTED = 100_000

DEFERS = frozenset({"limit", "budget", "gate", "paused", "model_down", "due"})
"""What a deferred job waits for; a job that waits for anything else is queued."""

_STATUS_COLUMNS = (
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
    with reading(engine) as connection:
        columns = (*_STATUS_COLUMNS, jobs.c.result, jobs.c.envelope)
        row = connection.execute(select(*columns).where(jobs.c.id == job_id)).first()
        if row is None:
            raise pruned(connection, [job_id]).get(job_id) or UnknownJob(job_id)
        waiting = open_jobs(connection, [row])
    if row.status in ENDED:
        return _ended(row)
    result = without_answer(row, _metadata(row.envelope))
    wait = find_waits(waiting).get(row.id) if waiting else None
    return result if wait is None else replace(result, **_waiting(wait))


def end_or_wait(
    engine: Engine, job_id: str, find_waits: FindWaits = no_waits
) -> Result | WaitingFor | None:
    """Return the result if the job has ended, else what it waits for; None if it runs.

    It does not read the request, which may be long. Raises UnknownJob and ResultExpired.
    """
    with reading(engine) as connection:
        columns = (*_STATUS_COLUMNS, jobs.c.result)
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
        row = connection.execute(select(*_STATUS_COLUMNS).where(jobs.c.id == job_id)).first()
        if row is None:
            if (gone := pruned(connection, [job_id]).get(job_id)) is not None:
                return gone.status
            raise UnknownJob(job_id)
        waiting = open_jobs(connection, [row])
    found: Status = row.status
    wait = find_waits(waiting).get(job_id) if waiting else None
    return found if wait is None else _status(wait)


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
                    try:
                        found[row.id] = _ended(row)
                    except ResultExpired as error:
                        found[row.id] = error
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


@dataclass(frozen=True, slots=True)
class Listed:
    """One job of a list, without its prompt and answer. Times are RFC 3339 in UTC.

    `model` is the model that was asked for. `retry_at`: until when a deferred job waits.
    `waiting_for`: what a job waits for that has not ended.
    """

    id: str
    status: Status
    priority: Priority
    model: str
    tenant: str
    user: str | None
    batch_id: str | None
    submitted_at: str | None
    started_at: str | None
    finished_at: str | None
    retry_at: str | None
    waiting_for: WaitingFor | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values."""
        return asdict(self)


def list_jobs(
    engine: Engine,
    *,
    status: Status | None = None,
    tenant: str | None = None,
    since: When | None = None,
    limit: int = 50,
    find_waits: FindWaits = no_waits,
) -> list[Listed]:
    """Return at most `limit` jobs, the newest first. `since` is a moment, or how long ago ("1h").

    Only the newest 20,000 waiting jobs are looked up to tell queued from deferred ones.
    Raises InvalidRequest.
    """
    query = _query(status, tenant, since, limit)
    if status not in WAITING:
        found = _page(engine, query.limit(limit), find_waits)
        return [one for one in found if status is None or one.status == status]
    return _list_waiting(engine, query, status, limit, find_waits)


def _list_waiting(
    engine: Engine, query: Select[Any], status: Status | None, limit: int, find_waits: FindWaits
) -> list[Listed]:
    """Read page after page until `limit` jobs have the status that only Redis knows."""
    found: list[Listed] = []
    page, seen = query.limit(max(PAGE, limit)), 0
    while len(found) < limit and seen < MAX_WAITING_ROWS:
        listed = _page(engine, page, find_waits)
        if not listed:
            break
        found += [one for one in listed if one.status == status]
        seen, last = seen + len(listed), listed[-1]
        place = tuple_(jobs.c.submitted_at_ms, jobs.c.id)
        page = query.limit(max(PAGE, limit))
        page = page.where(place < tuple_(ms_of(last.submitted_at), last.id))
    return found[:limit]


def _query(
    status: Status | None, tenant: str | None, since: When | None, limit: int
) -> Select[Any]:
    """Check what was asked for; return the query for it, without a limit."""
    if status is not None and status not in STATUSES:
        raise InvalidRequest("status", status, f"use one of {', '.join(STATUSES)}")
    if tenant is not None and not isinstance(tenant, str):
        raise InvalidRequest("tenant", tenant, "give the name of a tenant as text")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
        raise InvalidRequest("limit", limit, f"give a whole number from 1 to {MAX_LISTED}")
    query = select(*_STATUS_COLUMNS, jobs.c.tenant, jobs.c.user_id)
    query = query.order_by(jobs.c.submitted_at_ms.desc(), jobs.c.id.desc())
    if status is not None:
        query = query.where(jobs.c.status.in_(WAITING if status in WAITING else (status,)))
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    if since is not None:
        query = query.where(jobs.c.submitted_at_ms >= moments.ms_of("since", since))
    return query


def _page(engine: Engine, query: Select[Any], find_waits: FindWaits) -> list[Listed]:
    """Return the jobs of this query with what they wait for."""
    with reading(engine) as connection:
        rows = connection.execute(query).all()
        waiting = open_jobs(connection, rows)
    waits = find_waits(waiting) if waiting else {}
    return [
        replace(_listed(row), **_waiting(waits[row.id])) if row.id in waits else _listed(row)
        for row in rows
    ]


def _status(wait: WaitingFor) -> Status:
    return "deferred" if wait.kind in DEFERS else "queued"


def _waiting(wait: WaitingFor) -> dict[str, Any]:
    status = _status(wait)
    retry_at = wait.until if status == "deferred" else None
    return {"status": status, "retry_at": retry_at, "waiting_for": wait}


def known(engine: Engine, ids: Iterable[str]) -> set[str]:
    """Return which of the jobs are on record: for the `unsure_ids` of a SubmitInterrupted."""
    asked, found = list(ids), set[str]()
    with reading(engine) as connection:
        for first in range(0, len(asked), IDS_PER_QUERY):
            chunk = asked[first : first + IDS_PER_QUERY]
            found.update(connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(chunk))))
    return found


def _ended(row: Row[*tuple[Any, ...]]) -> Result:
    if row.result is None:
        raise ResultExpired(row.id, row.status, rfc3339(row.finished_at_ms))
    return decode_result(row.result)


def _metadata(encoded: str | None) -> dict[str, Any]:
    if not encoded:
        return {}
    metadata: dict[str, Any] = orjson.loads(encoded).get("request", {}).get("metadata") or {}
    return metadata


def _listed(row: Row[*tuple[Any, ...]]) -> Listed:
    return Listed(
        id=row.id,
        status=row.status,
        priority=row.priority,
        model=row.model,
        tenant=row.tenant,
        user=row.user_id,
        batch_id=row.batch_id,
        submitted_at=rfc3339(row.submitted_at_ms),
        started_at=rfc3339(row.started_at_ms),
        finished_at=rfc3339(row.finished_at_ms),
        retry_at=rfc3339(row.retry_at_ms) if row.status == "deferred" else None,
    )
