"""Reads jobs and their results from the record, which is the truth for every way to ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, get_args

import orjson
from sqlalchemy import Engine, Row, select, tuple_

from headgate.producer.errors import ResultExpired, UnknownJob
from headgate.producer.results.waiting_jobs import WAITING, Waits, nobody_waits
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import jobs
from headgate.shared.errors import HeadgateError, InvalidRequest
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import ENDED, Result, Status

STATUSES: tuple[Status, ...] = get_args(Status)
IDS_PER_QUERY = 500
PAGE = 500
MOST_LOOKED_AT = 20_000
"""Rows that are looked through at most for those that wait for a limit, or do not."""

_STANDING = (
    jobs.c.id, jobs.c.status, jobs.c.model, jobs.c.batch_id, jobs.c.retry_at_ms,
    jobs.c.submitted_at_ms, jobs.c.started_at_ms, jobs.c.finished_at_ms,
)  # fmt: skip


def read(engine: Engine, job_id: str, waits: Waits = nobody_waits) -> Result:
    """The result as it is now, ended or not; raises UnknownJob and ResultExpired.

    `waits`: where jobs are found that wait for a limit, which the record does not know.
    """
    with reading(engine) as connection:
        columns = (*_STANDING, jobs.c.result, jobs.c.envelope)
        row = connection.execute(select(*columns).where(jobs.c.id == job_id)).first()
    if row is None:
        raise UnknownJob(job_id)
    if row.status in ENDED:
        return _ended(row)
    result = standing(row, _metadata(row.envelope))
    if row.status not in WAITING:
        return result
    wait = waits([row.id]).get(row.id)
    return result if wait is None else replace(result, **_deferred(wait.until_ms))


def status(engine: Engine, job_id: str, waits: Waits = nobody_waits) -> Status:
    """The status now, also of a job whose result has expired; raises UnknownJob."""
    with reading(engine) as connection:
        found: Status | None = connection.scalar(select(jobs.c.status).where(jobs.c.id == job_id))
    if found is None:
        raise UnknownJob(job_id)
    return "deferred" if found in WAITING and waits([job_id]) else found


def look(engine: Engine, ids: Sequence[str]) -> dict[str, Result | HeadgateError]:
    """What can be said for good about the jobs: ended, expired or unknown; others are left out."""
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
            found.update((job_id, UnknownJob(job_id)) for job_id in missing)
    return found


def standing(row: Row[*tuple[Any, ...]], metadata: dict[str, Any] | None = None) -> Result:
    """The result of a job as far as its row tells: its status and its times."""
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
    """One job in a list: how far it is, without its words. Times are RFC 3339 in UTC."""

    id: str
    status: Status
    priority: str
    model: str
    tenant: str
    user: str | None
    batch_id: str | None
    submitted_at: str | None
    started_at: str | None
    finished_at: str | None
    retry_at: str | None

    def as_json(self) -> dict[str, Any]:
        """The line as plain JSON values."""
        return asdict(self)


def list_jobs(
    engine: Engine,
    *,
    status: str | None = None,
    tenant: str | None = None,
    since: datetime | timedelta | None = None,
    limit: int = 50,
    waits: Waits = nobody_waits,
) -> list[Listed]:
    """The newest jobs first, at most `limit`. `since`: a moment, or how long ago.

    Whether a job is queued or deferred is told of the newest 20,000 that wait.
    """
    if status is not None and status not in STATUSES:
        raise InvalidRequest("status", status, f"use one of {', '.join(STATUSES)}")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 100_000:
        raise InvalidRequest("limit", limit, "give a whole number from 1 to 100000")
    extra = (jobs.c.priority, jobs.c.tenant, jobs.c.user_id)
    query = select(*_STANDING, *extra).order_by(jobs.c.submitted_at_ms.desc(), jobs.c.id.desc())
    if status is not None:
        query = query.where(jobs.c.status.in_(WAITING if status in WAITING else (status,)))
    if tenant is not None:
        query = query.where(jobs.c.tenant == tenant)
    if since is not None:
        query = query.where(jobs.c.submitted_at_ms >= _since_ms(since))
    found: list[Listed] = []
    looked_at, last = 0, None
    while len(found) < limit and (looked_at < MOST_LOOKED_AT or status not in WAITING):
        page = query.limit(max(PAGE, limit) if status in WAITING else limit - len(found))
        if last is not None:
            place = tuple_(jobs.c.submitted_at_ms, jobs.c.id)
            page = page.where(place < tuple_(last.submitted_at_ms, last.id))
        with reading(engine) as connection:
            rows = connection.execute(page).all()
        told = _placed([_listed(row) for row in rows], waits)
        found += [one for one in told if status is None or one.status == status]
        if not rows or status not in WAITING:
            break
        looked_at, last = looked_at + len(rows), rows[-1]
    return found[:limit]


def _placed(listed: list[Listed], waits: Waits) -> list[Listed]:
    """The same with those deferred that wait for a limit."""
    known = waits([one.id for one in listed if one.status in WAITING])
    return [
        replace(one, **_deferred(known[one.id].until_ms)) if one.id in known else one
        for one in listed
    ]


def _deferred(until_ms: int | None) -> dict[str, Any]:
    return {"status": "deferred", "retry_at": rfc3339(until_ms)}


def known(engine: Engine, ids: Iterable[str]) -> set[str]:
    """Which of the jobs are on record; for ids that a SubmitInterrupted was not sure of."""
    asked, found = list(ids), set[str]()
    with reading(engine) as connection:
        for first in range(0, len(asked), IDS_PER_QUERY):
            chunk = asked[first : first + IDS_PER_QUERY]
            found.update(connection.scalars(select(jobs.c.id).where(jobs.c.id.in_(chunk))))
    return found


def _ended(row: Row[*tuple[Any, ...]]) -> Result:
    if row.result is None:
        raise ResultExpired(row.id, row.status, rfc3339(row.finished_at_ms))
    return Result.from_json(orjson.loads(row.result))


def _metadata(encoded: str | None) -> dict[str, Any]:
    if not encoded:
        return {}
    metadata: dict[str, Any] = orjson.loads(encoded).get("request", {}).get("metadata") or {}
    return metadata


def _since_ms(since: datetime | timedelta) -> int:
    if isinstance(since, timedelta):
        return now_ms() - int(since.total_seconds() * 1000)
    if since.tzinfo is None:
        raise InvalidRequest("since", since, "give a moment with a time zone, or a timedelta")
    return int(since.timestamp() * 1000)


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
