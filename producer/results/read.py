"""Read jobs and their results from the database, which is the truth however a caller asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import orjson
from sqlalchemy import Engine, Row, Select, select, tuple_

from headgate.producer.errors import ResultExpired, UnknownJob
from headgate.producer.moments import When, ms_of
from headgate.producer.results.pruned import pruned
from headgate.producer.results.waiting_jobs import FindWaits, no_waits
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import jobs
from headgate.shared.errors import HeadgateError, InvalidRequest
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.request import Priority
from headgate.shared.job.result import ENDED, WAITING, Result, Status
from headgate.shared.job.result_text import decode_result

STATUSES: tuple[Status, ...] = get_args(Status)
IDS_PER_QUERY = 500
PAGE = 500
MAX_WAITING_ROWS = 20_000
"""How many waiting jobs are looked up on Redis at most to tell queued from deferred ones."""

MAX_LISTED = 100_000

_STATUS_COLUMNS = (
    jobs.c.id, jobs.c.status, jobs.c.model, jobs.c.batch_id, jobs.c.retry_at_ms,
    jobs.c.submitted_at_ms, jobs.c.started_at_ms, jobs.c.finished_at_ms,
)  # fmt: skip


def read(engine: Engine, job_id: str, find_waits: FindWaits = no_waits) -> Result:
    """Return the result as it is now, whether the job has ended or not.

    `find_waits` finds out whether a queued job waits for a limit; its status is then "deferred".
    Raises UnknownJob and ResultExpired.
    """
    with reading(engine) as connection:
        columns = (*_STATUS_COLUMNS, jobs.c.result, jobs.c.envelope)
        row = connection.execute(select(*columns).where(jobs.c.id == job_id)).first()
        if row is None:
            raise pruned(connection, [job_id]).get(job_id) or UnknownJob(job_id)
    if row.status in ENDED:
        return _ended(row)
    result = without_answer(row, _metadata(row.envelope))
    if row.status not in WAITING:
        return result
    wait = find_waits([row.id]).get(row.id)
    return result if wait is None else replace(result, **_deferred(wait.until_ms))


def status(engine: Engine, job_id: str, find_waits: FindWaits = no_waits) -> Status:
    """Return the status now, also if the result has expired; raise UnknownJob."""
    with reading(engine) as connection:
        found: Status | None = connection.scalar(select(jobs.c.status).where(jobs.c.id == job_id))
        if found is None and (gone := pruned(connection, [job_id]).get(job_id)) is not None:
            found = gone.status
    if found is None:
        raise UnknownJob(job_id)
    return "deferred" if found in WAITING and find_waits([job_id]) else found


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
        with reading(engine) as connection:
            rows = connection.execute(query.limit(limit)).all()
        found = _with_waits([_listed(row) for row in rows], find_waits)
        return [one for one in found if status is None or one.status == status]
    return _list_waiting(engine, query, status, limit, find_waits)


def _list_waiting(
    engine: Engine, query: Select[Any], status: Status | None, limit: int, find_waits: FindWaits
) -> list[Listed]:
    """Read page after page until `limit` jobs have the status that only Redis knows."""
    found: list[Listed] = []
    page, seen = query.limit(max(PAGE, limit)), 0
    while len(found) < limit and seen < MAX_WAITING_ROWS:
        with reading(engine) as connection:
            rows = connection.execute(page).all()
        if not rows:
            break
        listed = _with_waits([_listed(row) for row in rows], find_waits)
        found += [one for one in listed if one.status == status]
        seen, last = seen + len(rows), rows[-1]
        place = tuple_(jobs.c.submitted_at_ms, jobs.c.id)
        page = query.limit(max(PAGE, limit))
        page = page.where(place < tuple_(last.submitted_at_ms, last.id))
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
    more = (jobs.c.priority, jobs.c.tenant, jobs.c.user_id)
    query = select(*_STATUS_COLUMNS, *more)
    query = query.order_by(jobs.c.submitted_at_ms.desc(), jobs.c.id.desc())
    if status is not None:
        query = query.where(jobs.c.status.in_(WAITING if status in WAITING else (status,)))
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    if since is not None:
        query = query.where(jobs.c.submitted_at_ms >= ms_of("since", since))
    return query


def _with_waits(listed: list[Listed], find_waits: FindWaits) -> list[Listed]:
    """Mark those as deferred that wait for a limit."""
    waits = find_waits([one.id for one in listed if one.status in WAITING])
    return [
        replace(one, **_deferred(waits[one.id].until_ms)) if one.id in waits else one
        for one in listed
    ]


def _deferred(until_ms: int | None) -> dict[str, Any]:
    return {"status": "deferred", "retry_at": rfc3339(until_ms)}


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
