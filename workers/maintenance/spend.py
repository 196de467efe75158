"""Adds up what the ledger says was spent in a day or a month (UTC), by tenant, user and key."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    case,
    exists,
    func,
    select,
)

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost.bill import IMPLAUSIBLE, counted_in
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.database.engine import reading, snapshot
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.database.usage_rollup import DAY_MS, exactly, whole
from headgate.shared.errors import HeadgateError
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import OPEN

Sums: TypeAlias = Counter[tuple[str, str, str]]
"""Tenant, user and gateway key (empty: none) to pico-USD."""

SKEW_MS = 3_600_000
"""The clock that a job was submitted by may be this much ahead of its worker's."""

MOST_UNSETTLED = 20_000


def span_ms(period: str) -> tuple[int, int]:
    """Return when a day (`20261121`) or a month (`202611`) begins and ends, in Unix ms.

    The end is exclusive.
    """
    is_day = len(period) == 8
    begin = datetime.strptime(period if is_day else f"{period}01", "%Y%m%d").replace(tzinfo=UTC)
    end = begin + timedelta(days=1) if is_day else (begin + timedelta(days=32)).replace(day=1)
    return int(begin.timestamp() * 1000), int(end.timestamp() * 1000)


def spent_on(engine: Engine, day: str) -> Sums:
    """Return what the attempts that began on this day cost, as budgets count it.

    Finds them by their jobs, which have indexes by time: jobs submitted since the day began, jobs
    submitted before that ended later, and open jobs. Of jobs that were pruned since the day ended,
    the audit lines are left.
    """
    first_ms, end_ms = span_ms(day)
    began = (attempts.c.started_at_ms >= first_ms, attempts.c.started_at_ms < end_ms)
    by_job, by_line = _costs_by(jobs, jobs.c.id), _costs_by(audit, audit.c.job_id)
    queries = [
        by_job.where(
            jobs.c.submitted_at_ms >= first_ms, jobs.c.submitted_at_ms < end_ms + SKEW_MS, *began
        ),
        by_line.where(
            audit.c.finished_at_ms >= first_ms, audit.c.submitted_at_ms < first_ms, *began
        ),
        by_job.where(jobs.c.status.in_(OPEN), jobs.c.submitted_at_ms < first_ms, *began),
    ]
    if now_ms() >= end_ms:
        queries.append(by_line.where(*_pruned_since(first_ms, end_ms), *began))
    sums: Sums = Counter()
    # At one moment: a job that is pruned between two queries would count twice.
    with snapshot(engine) as connection:
        for query in queries:
            _add(sums, connection, query)
    return sums


def _pruned_since(first_ms: int, end_ms: int) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for audit lines of the day's jobs whose rows were deleted."""
    return (
        audit.c.finished_at_ms >= first_ms, audit.c.submitted_at_ms >= first_ms,
        audit.c.submitted_at_ms < end_ms + SKEW_MS,
        ~exists().where(jobs.c.id == audit.c.job_id),
    )  # fmt: skip


def _costs_by(owners: Table, job_id: Column[str]) -> Select[Any]:
    """Return the query for the costs of attempts by the callers of these jobs.

    Attempts whose usage cannot be true are groups of their own, by the note that says what counts.
    """
    flagged = attempts.c.code == IMPLAUSIBLE
    note = case((flagged, attempts.c.message)).label("note")
    return (
        select(owners.c.tenant, owners.c.user_id, owners.c.key_id, note, func.count(),
               *exactly({"pico": case((flagged, 0), else_=attempts.c.cost_pico_usd)}))
        .join(attempts, attempts.c.job_id == job_id)
        .group_by(owners.c.tenant, owners.c.user_id, owners.c.key_id, "note")
    )  # fmt: skip


def _add(sums: Sums, connection: Connection, query: Select[Any]) -> None:
    for tenant, user, key, note, times, high, low in connection.execute(query):
        told = whole({"pico_high": high, "pico_low": low})["pico"]
        sums[tenant, user or "", key or ""] += told + times * counted_in(note)


def unsettled(engine: Engine, catalog: Catalog, period: str) -> Sums:
    """Return the upper bound of the period's attempts that are open or of unknown billing."""
    first_ms, end_ms = span_ms(period)
    query = (
        select(jobs.c.tenant, jobs.c.user_id, jobs.c.key_id, jobs.c.envelope, attempts.c.model,
               attempts.c.cost_pico_usd)
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .where(
            attempts.c.state.in_(("open", "unknown")),
            attempts.c.started_at_ms >= first_ms, attempts.c.started_at_ms < end_ms,
            jobs.c.submitted_at_ms >= first_ms - 7 * DAY_MS,
        )
        .limit(MOST_UNSETTLED)
    )  # fmt: skip
    sums: Sums = Counter()
    with reading(engine) as connection:
        for row in connection.execute(query):
            try:
                envelope = Envelope.decode(orjson.loads(row.envelope or b""))
                model = catalog.model(row.model)
            except (ValueError, HeadgateError):
                continue  # pruned, of another release, or of a model that is gone
            bound = upper_bound_pico_usd(envelope.request, model, catalog)
            # What was made of a broken answer counts already.
            unpaid = max(0, (bound or 0) - (row.cost_pico_usd or 0))
            sums[row.tenant, row.user_id or "", row.key_id or ""] += unpaid
    return sums
