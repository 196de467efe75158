"""Lists jobs, the newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypedDict, get_args

from sqlalchemy import ColumnElement, Engine, Row, Select, or_, select, tuple_

from headgate.producer import moments
from headgate.producer.errors import UnknownJob
from headgate.producer.moments import When
from headgate.producer.results.open_jobs import open_jobs
from headgate.producer.results.read import STATUS_COLUMNS, waiting_fields
from headgate.producer.waits.find import FindWaits, no_waits
from headgate.shared.cost.price import usd_text
from headgate.shared.database.engine import reading
from headgate.shared.database.job_metadata import has_pair, text_of
from headgate.shared.database.tables import audit, jobs
from headgate.shared.errors import ErrorCode, InvalidRequest
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.request import PRIORITIES, Priority
from headgate.shared.job.result import WAITING, Status
from headgate.shared.job.waiting_for import WaitingFor, ms_of

STATUSES: tuple[Status, ...] = get_args(Status)
CODES: tuple[ErrorCode, ...] = get_args(ErrorCode)
PAGE = 500
MAX_WAITING_ROWS = 20_000
"""How many waiting jobs are looked up on Redis at most to tell queued from deferred ones."""

MAX_LISTED = 100_000


@dataclass(frozen=True, slots=True)
class Listed:
    """One job of a list, without its prompt and answer. Times are RFC 3339 in UTC.

    `model` is the model that was asked for, `model_used` the one that answered. `retry_at`: until
    when a deferred job waits. `waiting_for`: what a job waits for that has not ended.

    Of a job that has ended: `code` is that of its error, `duration_ms` the time from its start to
    its end, `latency_ms` that of the call that answered, `cost_usd` the cost of all attempts as a
    decimal text (None where a price is unknown).
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
    code: str | None = None
    model_used: str | None = None
    cached: str | None = None
    attempts: int | None = None
    queued_ms: int | None = None
    duration_ms: int | None = None
    latency_ms: int | None = None
    cost_usd: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the job as plain JSON values."""
        return asdict(self)


class JobFilters(TypedDict, total=False):
    """Which jobs to list. All fields are optional, and None is no filter.

    status, tenant, user, priority: only jobs of this one.
    model: only jobs for which this model was asked, or which it answered; with its provider
        (`openai/gpt-4o`) or without.
    batch: only jobs of the batch with this id.
    code: only jobs that ended with this error code.
    metadata: only jobs whose metadata has all these names with these plain values.
    since: only jobs submitted after this moment (with a time zone), or at most so long ago: a
        timedelta, or a text such as "1h".
    before: the id of a job: only those that stand after it in the list. So the last id of a page
        asks for the next page.
    limit: how many at most, from 1 to 100,000. Default 50.
    """

    status: Status | None
    tenant: str | None
    user: str | None
    model: str | None
    batch: str | None
    priority: Priority | None
    code: ErrorCode | None
    metadata: Mapping[str, str | int | float | bool] | None
    since: When | None
    before: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class JobQuery:
    """The filters of a list; see JobFilters."""

    status: Status | None = None
    tenant: str | None = None
    user: str | None = None
    model: str | None = None
    batch: str | None = None
    priority: Priority | None = None
    code: ErrorCode | None = None
    metadata: Mapping[str, str | int | float | bool] | None = None
    since: When | None = None
    before: str | None = None
    limit: int = 50


def list_jobs(engine: Engine, asked: JobQuery, find_waits: FindWaits = no_waits) -> list[Listed]:
    """Return at most `limit` jobs, the newest first.

    Only the newest 20,000 waiting jobs are looked up to tell queued from deferred ones. Raises
    InvalidRequest, and UnknownJob for `before`.
    """
    check_filters(asked)
    query = _query(asked)
    if asked.before is not None:
        query = query.where(_after(*_place_of(engine, asked.before)))
    if asked.status not in WAITING:
        found = _page(engine, query.limit(asked.limit), find_waits)
        return [one for one in found if asked.status in (None, one.status)]
    return _list_waiting(engine, query, asked.status, asked.limit, find_waits)


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
        page = query.limit(max(PAGE, limit)).where(_after(ms_of(last.submitted_at) or 0, last.id))
    return found[:limit]


def check_filters(asked: JobQuery) -> None:
    """Raise InvalidRequest for the first field that cannot be right."""
    words = (("status", STATUSES), ("priority", PRIORITIES), ("code", CODES))
    for name, known in words:
        if (given := getattr(asked, name)) is not None and given not in known:
            raise InvalidRequest(name, given, f"use one of {', '.join(known)}")
    for name in ("tenant", "user", "model", "batch", "before"):
        given = getattr(asked, name)
        if given is not None and (not isinstance(given, str) or "\0" in given):
            what = "id" if name in ("batch", "before") else "name"
            raise InvalidRequest(name, given, f"give the {what} as text")
    limit = asked.limit
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LISTED:
        raise InvalidRequest("limit", limit, f"give a whole number from 1 to {MAX_LISTED}")
    if asked.metadata is not None and not isinstance(asked.metadata, Mapping):
        raise InvalidRequest("metadata", asked.metadata, 'give names and values: {"run": 7}')


def _query(asked: JobQuery) -> Select[Any]:
    ended = (
        audit.c.error_code, audit.c.model_used, audit.c.cached, audit.c.attempts,
        audit.c.latency_ms, audit.c.cost_pico_usd,
    )  # fmt: skip
    query = select(*STATUS_COLUMNS, jobs.c.tenant, jobs.c.user_id, *ended)
    query = query.select_from(jobs.outerjoin(audit, audit.c.job_id == jobs.c.id))
    query = query.order_by(jobs.c.submitted_at_ms.desc(), jobs.c.id.desc())
    return query.where(*_conditions(asked))


def _conditions(asked: JobQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if asked.status is not None:
        alike = WAITING if asked.status in WAITING else (asked.status,)
        wanted.append(jobs.c.status.in_(alike))
    for column, value in (
        (jobs.c.tenant, asked.tenant),
        (jobs.c.user_id, asked.user),
        (jobs.c.batch_id, asked.batch),
        (jobs.c.priority, asked.priority),
        (audit.c.error_code, asked.code),
    ):
        if value is not None:
            wanted.append(column == value)
    if asked.model is not None:
        names = {asked.model, asked.model.rpartition("/")[2]}
        wanted.append(or_(jobs.c.model.in_(names), audit.c.model_used.in_(names)))
    if asked.since is not None:
        wanted.append(jobs.c.submitted_at_ms >= moments.ms_of("since", asked.since))
    wanted += [has_pair(*pair_of(key, value)) for key, value in (asked.metadata or {}).items()]
    return wanted


def pair_of(key: str, value: object) -> tuple[str, str]:
    text = text_of(value)
    if not isinstance(key, str) or text is None or "\0" in key + text:
        remedy = "only texts, numbers, true and false can be found"
        raise InvalidRequest(f"metadata.{key}", value, remedy)
    return key, text


def _after(submitted_at_ms: int, job_id: str) -> ColumnElement[bool]:
    """Return the condition for jobs that stand after this one in the list."""
    place = tuple_(jobs.c.submitted_at_ms, jobs.c.id)
    return place < tuple_(submitted_at_ms, job_id)


def _place_of(engine: Engine, job_id: str) -> tuple[int, str]:
    """Return the place of a job in the list; raise UnknownJob."""
    with reading(engine) as connection:
        for table, id_column in ((jobs, jobs.c.id), (audit, audit.c.job_id)):
            query = select(table.c.submitted_at_ms).where(id_column == job_id)
            at_ms: int | None = connection.scalar(query)
            if at_ms is not None:
                return at_ms, job_id
    raise UnknownJob(job_id)


def _page(engine: Engine, query: Select[Any], find_waits: FindWaits) -> list[Listed]:
    """Return the jobs of this query with what they wait for."""
    with reading(engine) as connection:
        rows = connection.execute(query).all()
        waiting = open_jobs(connection, rows)
    waits = find_waits(waiting) if waiting else {}
    return [
        replace(_listed(row), **waiting_fields(row, waits[row.id]))
        if row.id in waits
        else _listed(row)
        for row in rows
    ]


def _listed(row: Row[*tuple[Any, ...]]) -> Listed:
    started, finished = row.started_at_ms, row.finished_at_ms
    timed = started is not None and finished is not None
    return Listed(
        id=row.id,
        status=row.status,
        priority=row.priority,
        model=row.model,
        tenant=row.tenant,
        user=row.user_id,
        batch_id=row.batch_id,
        submitted_at=rfc3339(row.submitted_at_ms),
        started_at=rfc3339(started),
        finished_at=rfc3339(finished),
        retry_at=rfc3339(row.retry_at_ms) if row.status == "deferred" else None,
        code=row.error_code,
        model_used=row.model_used,
        cached=row.cached,
        attempts=row.attempts,
        queued_ms=None if started is None else max(0, started - row.submitted_at_ms),
        duration_ms=max(0, finished - started) if timed else None,
        latency_ms=row.latency_ms,
        cost_usd=None if row.attempts is None else usd_text(row.cost_pico_usd),
    )
