"""Prunes the record for an operator: the same pass as the workers' own, or a dry run of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.database import sqlite_lock
from headgate.shared.database.engine import lost_a_race, reading
from headgate.shared.database.prune import Cutoffs, Pruned, cutoffs, prune
from headgate.shared.errors import WrongUse
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.settings import Settings

TABLES = ("jobs", "batches", "audit", "attempts")

NOTE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was deleted, or would be. The cutoffs are RFC 3339 in UTC; None keeps all rows.

    `tables`: all that went, by table. `unpruned`: why the audit lines of a day stay, by day.
    """

    dry_run: bool
    jobs_before: str | None
    audit_before: str | None
    tables: dict[str, Pruned] = field(default_factory=dict)
    unpruned: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "dry_run": self.dry_run,
            "jobs_before": self.jobs_before,
            "audit_before": self.audit_before,
            "tables": {name: _as_json(self.tables.get(name)) for name in TABLES},
            "unpruned_days": self.unpruned,
        }


def _as_json(one: Pruned | None) -> dict[str, Any]:
    if one is None:
        return {"rows": 0, "oldest": None, "newest": None}
    return {"rows": one.rows, "oldest": rfc3339(one.oldest_ms), "newest": rfc3339(one.newest_ms)}


def cutoffs_of(
    chosen: Settings, jobs: timedelta | None = None, audit: timedelta | None = None
) -> Cutoffs:
    """Return the cutoffs for these ages, or for those of the settings where they are None."""
    jobs = timedelta(days=chosen.keep_days) if jobs is None else jobs
    audit = timedelta(days=chosen.keep_audit_days) if audit is None else audit
    return cutoffs(now_ms(), _ms(jobs), _ms(audit))


def _ms(age: timedelta) -> int:
    return int(age.total_seconds() * 1000)


def prune_record(
    engine: Engine, before: Cutoffs, *, dry_run: bool, notify: Callable[[str], None]
) -> PruneReport:
    """Delete what ended before these times, or count it. `notify` is called as it goes on.

    After each transaction it pauses for as long as that took, so that workers are not held up.
    """
    report = PruneReport(dry_run, rfc3339(before.jobs_ms), rfc3339(before.audit_ms))
    steps = prune(engine, before, now_ms(), dry_run=dry_run)
    notify_at = time.monotonic() + NOTE_EVERY_S
    while True:
        began = time.monotonic()
        try:
            step = next(steps, None)
        except DBAPIError as error:
            if not lost_a_race(error):
                raise
            steps = prune(engine, before, now_ms(), dry_run=dry_run)
            continue
        if step is None:
            return report
        if isinstance(step, Pruned):
            _add(report.tables, step)
        else:
            day = f"{step.day // 10_000}-{step.day // 100 % 100:02d}-{step.day % 100:02d}"
            report.unpruned[day] = step.reason
        if time.monotonic() >= notify_at:
            notify_at = time.monotonic() + NOTE_EVERY_S
            notify(f"{sum(one.rows for one in report.tables.values())} rows so far")
        if not dry_run:
            time.sleep(time.monotonic() - began)


def _add(tables: dict[str, Pruned], step: Pruned) -> None:
    if not step.rows:
        return
    before = tables.get(step.table)
    if before is None:
        tables[step.table] = step
        return
    tables[step.table] = replace(
        step,
        rows=before.rows + step.rows,
        oldest_ms=min(before.oldest_ms, step.oldest_ms),
        newest_ms=max(before.newest_ms, step.newest_ms),
    )


def vacuum(engine: Engine) -> int:
    """Give the free pages of a SQLite file back to the disk; return how many bytes these were.

    Nobody else can write meanwhile. Raise WrongUse on PostgreSQL, which reuses the space itself.
    """
    if engine.dialect.name != "sqlite":
        remedy = "omit it: autovacuum makes the space free for new rows"
        raise WrongUse("--vacuum", "PostgreSQL", remedy)
    bound_s = engine.get_execution_options()["bound_s"]
    with sqlite_lock.turn(str(engine.url.database), bound_s), reading(engine) as connection:
        before = _size(connection)
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return before - _size(connection)


def _size(connection: Any) -> int:
    page_bytes = connection.exec_driver_sql("PRAGMA page_size").scalar()
    return int(connection.exec_driver_sql("PRAGMA page_count").scalar() * page_bytes)
