"""Deletes the rows that are kept no longer, some hundreds in each transaction.

Jobs are deleted with their prompts, answers and metadata, and a batch with all its jobs, once the
last of them is old. Open jobs stay, and so do the jobs of a batch with an open or a younger job.

Audit lines are deleted with the attempts of their jobs, a whole day (UTC) after the other. The day
must be in the roll-up, and none of its jobs on record: so usage stays exact. With each transaction
`usage_summed` gets the number of the lines that are left. So nobody takes the day for one whose
lines have changed, not even a worker of the release before, which would sum up what is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    and_,
    delete,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)

from headgate.shared.database.engine import reading, snapshot, writing
from headgate.shared.database.migrate import ADVISORY_LOCK
from headgate.shared.database.tables import (
    attempts,
    audit,
    batches,
    job_metadata,
    jobs,
    usage_summed,
)
from headgate.shared.database.usage_rollup import (
    DAY_MS,
    begin_ms,
    day_of,
    lines_of,
    pruned_days,
    sum_day,
    summed,
)
from headgate.shared.job.result import ENDED

FIRST_ROWS, MOST_ROWS = 100, 1000
"""Rows of one table in the first transaction of a pass on SQLite, and the most in any."""

SHORT_S, LONG_S = 0.05, 0.2
"""On SQLite nobody else can write meanwhile. A transaction that takes longer than LONG_S makes the
next one half as large, and one that takes less than SHORT_S makes it twice as large."""

TURN = ADVISORY_LOCK + 1
"""The key of PostgreSQL's advisory lock that a transaction here holds: two that delete the same
rows could deadlock."""


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Rows of jobs that ended before these times (Unix ms) are deleted; None keeps all rows.

    `jobs_ms` is for jobs and batches, `audit_ms` for audit lines and attempts.
    """

    jobs_ms: int | None
    audit_ms: int | None


def cutoffs(now_ms: int, jobs_ms: int, audit_ms: int) -> Cutoffs:
    """Return the cutoffs for jobs and audit lines that are kept so long (ms); 0 is for ever.

    Audit lines are kept at least as long as jobs, which could be retried otherwise without the line
    that says what they have cost.
    """
    kept = bool(jobs_ms and audit_ms)
    return Cutoffs(
        now_ms - jobs_ms if jobs_ms else None,
        now_ms - max(jobs_ms, audit_ms) if kept else None,
    )


@dataclass(frozen=True, slots=True)
class Pruned:
    """So many rows of a table were deleted. `oldest_ms` and `newest_ms`: their times (Unix ms).

    No rows: all that this step looked at stay. The time of a batch is its creation, that of an
    attempt the end of its job.
    """

    table: str
    rows: int
    oldest_ms: int
    newest_ms: int


@dataclass(frozen=True, slots=True)
class UnprunedDay:
    """The audit lines of a day that is old enough were not deleted; `reason` says why."""

    day: int
    reason: str


Step: TypeAlias = Pruned | UnprunedDay


def prune(engine: Engine, before: Cutoffs, at_ms: int, *, dry_run: bool = False) -> Iterator[Step]:
    """Delete what ended before these times; each step of the iterator ends a transaction.

    `at_ms`: now, in Unix ms. With `dry_run` the steps say what would be deleted. An iterator that
    is not used up does no harm: the next pass deletes the rest.
    """
    is_alone = engine.dialect.name == "sqlite"  # while it writes
    size = _Size(FIRST_ROWS if is_alone and not dry_run else MOST_ROWS, is_fixed=not is_alone)
    if before.jobs_ms is not None:
        yield from _prune_batches(engine, before.jobs_ms, dry_run)
        yield from _prune_jobs(engine, before.jobs_ms, dry_run, size)
    if before.audit_ms is not None:
        yield from _prune_days(engine, before.audit_ms, at_ms, dry_run, size)


@dataclass
class _Size:
    """How many rows the next transaction deletes, by how long the last one took.

    `is_fixed`: always as many. On a busy PostgreSQL, where nobody waits for it, any takes long.
    """

    rows: int
    is_fixed: bool

    def learn(self, took_s: float) -> None:
        if self.is_fixed:
            return
        if took_s > LONG_S:
            self.rows = max(1, self.rows // 2)
        elif took_s < SHORT_S:
            self.rows = min(MOST_ROWS, self.rows * 2)


def _prune_batches(engine: Engine, before_ms: int, dry_run: bool) -> Iterator[Step]:
    """Delete the rows of batches that are over. Their jobs have no batch then, and go next."""
    columns = (batches.c.id, batches.c.created_at_ms)
    after = ""
    while True:
        page = select(*columns).where(batches.c.id > after, ~_batch_stays(before_ms))
        with reading(engine) as connection:
            found = connection.execute(page.order_by(batches.c.id).limit(FIRST_ROWS)).all()
        if not found:
            return
        after = found[-1].id
        ids = [row.id for row in found]
        if not dry_run:
            with deleting(engine) as connection:
                over = and_(batches.c.id.in_(ids), ~_batch_stays(before_ms))
                connection.execute(delete(batches).where(over))
        times = [row.created_at_ms for row in found]
        yield Pruned("batches", len(ids), min(times), max(times))


def _prune_jobs(engine: Engine, before_ms: int, dry_run: bool, size: _Size) -> Iterator[Step]:
    """Delete the jobs that are over, in the order of their submission."""
    over = and_(jobs.c.status.in_(ENDED), jobs.c.finished_at_ms < before_ms)
    batch = select(batches.c.id).where(batches.c.id == jobs.c.batch_id).limit(1)
    its_batch_is_over = batch.where(_batch_stays(before_ms)).scalar_subquery().is_(None)
    columns = (jobs.c.id, jobs.c.submitted_at_ms, jobs.c.finished_at_ms)
    query = select(*columns, and_(over, its_batch_is_over).label("goes"))
    query = query.where(jobs.c.submitted_at_ms < before_ms)
    query = query.order_by(jobs.c.submitted_at_ms, jobs.c.id)
    page = query
    while True:
        with reading(engine) as connection:
            found = connection.execute(page.limit(size.rows)).all()
        if not found:
            return
        last = found[-1]
        page = query.where(
            jobs.c.submitted_at_ms >= last.submitted_at_ms,  # for the index
            tuple_(jobs.c.submitted_at_ms, jobs.c.id) > tuple_(last.submitted_at_ms, last.id),
        )
        gone = [row for row in found if row.goes]
        if gone and not dry_run:
            began = time.monotonic()
            with deleting(engine) as connection:
                # A job that was reopened meanwhile has not ended any more.
                ids = [row.id for row in gone]
                connection.execute(delete(jobs).where(jobs.c.id.in_(ids), over))
                _delete_metadata(connection, ids)
            size.learn(time.monotonic() - began)
        yield _by_end("jobs", gone)


def _delete_metadata(connection: Connection, ids: Sequence[str]) -> None:
    """Delete the metadata of those of these jobs that are deleted."""
    of_these = job_metadata.c.job_id.in_(ids)
    left = select(jobs.c.id).where(jobs.c.id == job_metadata.c.job_id).exists()
    connection.execute(delete(job_metadata).where(of_these, ~left))


def _batch_stays(before_ms: int) -> ColumnElement[bool]:
    """Return the condition for batches that are young, or have a job that is open or young."""
    mate = jobs.alias("mate")
    # Not EXISTS: PostgreSQL could read the open jobs of all batches instead of one entry of an
    # index.
    ours = select(mate.c.batch_id).where(mate.c.batch_id == batches.c.id).limit(1)
    return or_(
        batches.c.created_at_ms >= before_ms,
        func.coalesce(batches.c.submitted_at_ms, 0) >= before_ms,
        ours.where(mate.c.finished_at_ms.is_(None)).scalar_subquery().is_not(None),
        ours.where(mate.c.finished_at_ms >= before_ms).scalar_subquery().is_not(None),
    )


def _prune_days(
    engine: Engine, before_ms: int, at_ms: int, dry_run: bool, size: _Size
) -> Iterator[Step]:
    """Delete the audit lines and attempts of each day that was over before this time."""
    from_ms, until_ms = 0, before_ms // DAY_MS * DAY_MS
    while True:
        ended = audit.c.finished_at_ms
        oldest = select(func.min(ended)).where(ended >= from_ms, ended < until_ms)
        with reading(engine) as connection:
            first_ms = connection.scalar(oldest)
        if first_ms is None:
            return
        day = day_of(first_ms)
        from_ms = begin_ms(day) + DAY_MS
        reason = None if dry_run else _why_kept(engine, day, at_ms)
        if reason is None:
            yield from _prune_day(engine, day, dry_run, size)
        else:
            yield UnprunedDay(day, reason)


def _why_kept(engine: Engine, day: int, at_ms: int) -> str | None:
    """Roll up the day if needed; return why its audit lines cannot be deleted, or None."""
    first_ms, end_ms = begin_ms(day), begin_ms(day) + DAY_MS
    with snapshot(engine) as connection:
        lines = lines_of(connection, first_ms, end_ms).get(day, 0)
        is_summed = summed(connection).get(day) == lines
        is_pruned = day in pruned_days(connection, [day])
        # Reopening a job deletes its audit line and takes the day out of the roll-up.
        of_day = and_(jobs.c.finished_at_ms >= first_ms, jobs.c.finished_at_ms < end_ms)
        left = select(jobs.c.id).where(jobs.c.submitted_at_ms < end_ms + DAY_MS, of_day).limit(1)
        job_id = connection.scalar(left)
    if job_id is not None:
        return f"job {job_id} is still on record"
    if is_summed:
        return None
    if is_pruned:
        return "lines were added after it was pruned"
    return None if sum_day(engine, day, at_ms) else "its usage cannot be rolled up"


def _prune_day(engine: Engine, day: int, dry_run: bool, size: _Size) -> Iterator[Step]:
    first_ms = begin_ms(day)
    ended = audit.c.finished_at_ms
    query = select(audit.c.job_id, ended).where(ended >= first_ms, ended < first_ms + DAY_MS)
    query = query.order_by(ended, audit.c.job_id)
    page = query
    while True:
        with reading(engine) as connection:
            found = connection.execute(page.limit(size.rows)).all()
            ids = [row.job_id for row in found]
            tried = select(func.count()).where(attempts.c.job_id.in_(ids))
            count = int(connection.scalar(tried) or 0) if ids else 0
        if not found:
            return
        last = found[-1]
        place = tuple_(ended, audit.c.job_id) > tuple_(last.finished_at_ms, last.job_id)
        page = query.where(ended >= last.finished_at_ms, place)
        if not dry_run:
            began = time.monotonic()
            if not _delete_lines(engine, day, ids):
                yield UnprunedDay(day, "its usage is rolled up again")
                return
            size.learn(time.monotonic() - began)
        yield _by_end("audit", found)
        if count:
            yield Pruned("attempts", count, found[0].finished_at_ms, last.finished_at_ms)


def _delete_lines(engine: Engine, day: int, ids: Sequence[str]) -> bool:
    """Delete these audit lines of the day, and the attempts of their jobs.

    Return False, and delete nothing, if the day is not in the roll-up any more.
    """
    of_day = usage_summed.c.day == day
    with deleting(engine) as connection:
        # Who rolls up the day or takes it out waits for this transaction, or this one for theirs.
        held = select(usage_summed.c.lines).where(of_day).with_for_update()
        if connection.scalar(held) is None:
            return False
        connection.execute(delete(attempts).where(attempts.c.job_id.in_(ids)))
        lines = connection.execute(delete(audit).where(audit.c.job_id.in_(ids))).rowcount
        left = usage_summed.c.lines - lines
        connection.execute(update(usage_summed).where(of_day).values(lines=left))
    return True


def _by_end(table: str, rows: Sequence[Row[*tuple[Any, ...]]]) -> Pruned:
    times = [row.finished_at_ms for row in rows] or [0]
    return Pruned(table, len(rows), min(times), max(times))


@contextmanager
def deleting(engine: Engine) -> Iterator[Connection]:
    """Give a transaction that no other one of this file runs beside."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": TURN})
        yield connection
