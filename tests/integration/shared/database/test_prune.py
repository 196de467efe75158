"""Pruning the record: what goes, what stays, and that usage stays exact to the last job."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine, func, select

from headgate.producer.usage.query import usage
from headgate.producer.usage.report import BY, UsageReport
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, snapshot
from headgate.shared.database.job_metadata import add_metadata, pairs_of
from headgate.shared.database.prune import (
    FIRST_ROWS,
    MOST_ROWS,
    Cutoffs,
    Pruned,
    Step,
    UnprunedDay,
    cutoffs,
    deleting,
    prune,
)
from headgate.shared.database.tables import audit, jobs, usage_summed
from headgate.shared.database.usage_rollup import DAY_MS, begin_ms, stale, sum_day
from headgate.workers.maintenance.spend import spent_on
from tests.support.old_rows import ids_in, put_batch, put_job
from tests.support.usage import FIRST, START_MS, line, put

OLD_MS, CUT_MS, YOUNG_MS = START_MS, START_MS + 5 * DAY_MS, START_MS + 6 * DAY_MS
NOW_MS = START_MS + 9 * DAY_MS

ALL_JOBS = Cutoffs(CUT_MS, None)
ALL = Cutoffs(CUT_MS, CUT_MS)


def counted(steps: Iterator[Step]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for step in steps:
        assert isinstance(step, Pruned), step
        assert step.oldest_ms <= step.newest_ms < CUT_MS
        counts[step.table] += step.rows
    return +counts


def test_ended_jobs_go_and_open_and_younger_ones_stay_with_all_audit_lines(engine: Engine) -> None:
    gone = {put_job(engine, OLD_MS + n, status=status) for n, status in enumerate(
        ("succeeded", "failed", "cancelled", "expired"))}  # fmt: skip
    gone.add(put_job(engine, OLD_MS, envelope=None))  # emptied by the release before
    stay = {
        put_job(engine, None, started_ms=OLD_MS),
        put_job(engine, YOUNG_MS, started_ms=OLD_MS),
        put_job(engine, CUT_MS),
    }
    dry = counted(prune(engine, ALL_JOBS, NOW_MS, dry_run=True))
    assert ids_in(engine, "jobs") == gone | stay
    assert counted(prune(engine, ALL_JOBS, NOW_MS)) == dry == {"jobs": len(gone)}
    assert ids_in(engine, "jobs") == stay
    assert ids_in(engine, "attempts") == gone | stay
    assert len(ids_in(engine, "audit")) == len(gone | stay) - 1
    assert counted(prune(engine, ALL_JOBS, NOW_MS)) == {}


def test_a_transaction_is_small_only_where_others_wait_for_it(engine: Engine) -> None:
    for _ in range(MOST_ROWS + 1):
        put_job(engine, OLD_MS)
    steps = [step.rows for step in prune(engine, ALL_JOBS, NOW_MS) if isinstance(step, Pruned)]
    is_sqlite = engine.dialect.name == "sqlite"
    assert steps[0] == (FIRST_ROWS if is_sqlite else MOST_ROWS)
    assert sum(steps) == MOST_ROWS + 1


def test_the_metadata_of_a_job_goes_with_it(engine: Engine) -> None:
    gone, stays = put_job(engine, OLD_MS), put_job(engine, YOUNG_MS)
    with engine.begin() as connection:
        add_metadata(connection, [(job, pairs_of({"run": 7, "x": "y"})) for job in (gone, stays)])
    assert counted(prune(engine, ALL_JOBS, NOW_MS, dry_run=True)) == {"jobs": 1}
    assert ids_in(engine, "job_metadata") == {gone, stays}
    assert counted(prune(engine, ALL_JOBS, NOW_MS)) == {"jobs": 1}
    assert ids_in(engine, "job_metadata") == {stays}


def test_a_batch_stays_whole_until_its_last_job_is_old(engine: Engine) -> None:
    for batch_id, ends in (("over", (OLD_MS, OLD_MS + 1)), ("half", (OLD_MS, YOUNG_MS)),
                           ("open", (OLD_MS, None)), ("again", (OLD_MS, OLD_MS))):  # fmt: skip
        put_batch(engine, batch_id, OLD_MS, submitted_at_ms=YOUNG_MS if batch_id == "again" else 1)
        for n, ended_ms in enumerate(ends):
            put_job(
                engine, ended_ms, job_id=f"{batch_id}{n}", batch_id=batch_id, batch_line=n,
                started_ms=OLD_MS - 1,
            )  # fmt: skip
    put_batch(engine, "new", YOUNG_MS)
    put_batch(engine, "never queued", OLD_MS, submitted_at_ms=None)
    put_job(engine, OLD_MS, job_id="alone", batch_id="row is gone", batch_line=1)
    dry = counted(prune(engine, ALL_JOBS, NOW_MS, dry_run=True))
    assert counted(prune(engine, ALL_JOBS, NOW_MS)) == dry == {"jobs": 3, "batches": 2}
    assert ids_in(engine, "batches") == {"half", "open", "again", "new"}
    assert ids_in(engine, "jobs") == {f"{name}{n}" for name in ("half", "open", "again")
                                      for n in range(2)}  # fmt: skip


def put_days(engine: Engine) -> list[dict[str, Any]]:
    """Put lines of four days there, of several owners; the jobs have no rows any more."""
    rows = [
        line(
            START_MS + day * DAY_MS + n * 3_600_000, tenant=tenant, user_id=user, batch_id=batch,
            template=template, model_used=model, cost_pico_usd=cost, latency_ms=latency,
        )
        for day in range(4)
        for n, (tenant, user, batch, template, model, cost, latency) in enumerate(
            (
                ("acme", "u1", None, None, "gpt-4o", 2**61 + day, 90),
                ("acme", None, "b1", None, None, 7, 1_000),
                ("omni", "u1", "b1", "t", "gpt-4o", None, 4_321),
                ("omni", "u2", "b2", "t", "gpt-4o-mini", 999_999_999_999, None),
            )
        )
    ]  # fmt: skip
    put(engine, *rows)
    return rows


def reports(engine: Engine) -> list[UsageReport]:
    """Return usage by each dimension, by all together, and for single owners."""
    groups: list[tuple[str, ...]] = [(), *((name,) for name in BY), ("day", "tenant", "model")]
    found = [usage(engine, by=by) for by in (*groups, BY)]
    found.append(usage(engine, by="day", tenant="acme", since=date(2026, 2, 28)))
    return [*found, usage(engine, by="user", batch="b1", until=date(2026, 2, 28))]


def test_usage_is_the_same_to_the_pico_dollar_after_each_step(engine: Engine) -> None:
    put_days(engine)
    before = reports(engine)
    cut = Cutoffs(None, START_MS + 3 * DAY_MS + 5)
    dry = Counter(counted(prune(engine, cut, NOW_MS, dry_run=True)))
    counts: Counter[str] = Counter()
    for step in prune(engine, cut, NOW_MS):
        assert isinstance(step, Pruned)
        counts[step.table] += step.rows
        assert reports(engine) == before
        with snapshot(engine) as connection:  # a worker of the release before sums nothing again
            assert set(stale(connection, 0, NOW_MS)) <= {20260228, 20260301, 20260302}
    assert counts == dry == {"audit": 12}
    assert len(ids_in(engine, "audit")) == 4
    with snapshot(engine) as connection:
        assert stale(connection, 0, START_MS + 3 * DAY_MS) == []
    assert sum_day(engine, 20260302, NOW_MS)
    assert reports(engine) == before
    put_days(engine)  # lines that come much too late are not summed up instead of the others
    assert not sum_day(engine, FIRST, NOW_MS)
    kept = [step for step in prune(engine, cut, NOW_MS) if isinstance(step, UnprunedDay)]
    assert {one.day for one in kept} == {FIRST, 20260228, 20260301}
    assert {one.reason for one in kept} == {"lines were added after it was pruned"}


def test_a_pass_that_ends_in_the_middle_of_a_day_leaves_usage_exact(engine: Engine) -> None:
    first = FIRST_ROWS if engine.dialect.name == "sqlite" else MOST_ROWS
    put(engine, *(line(START_MS + n, cost_pico_usd=n) for n in range(first + 150)))
    before = reports(engine)
    steps = prune(engine, ALL, NOW_MS)
    assert next(steps) == Pruned("audit", first, START_MS, START_MS + first - 1)
    assert reports(engine) == before
    with snapshot(engine) as connection:
        assert stale(connection, 0, NOW_MS) == []
    assert not sum_day(engine, FIRST, NOW_MS), "the deleted lines cannot be summed again"
    assert counted(prune(engine, ALL, NOW_MS)) == {"audit": 150}
    assert reports(engine) == before


def test_a_period_that_cuts_a_pruned_day_gets_the_whole_day(engine: Engine) -> None:
    put_days(engine)
    noon = datetime(2026, 2, 28, 2, 30, tzinfo=UTC)
    assert usage(engine, since=noon, until=noon.replace(hour=3)).total.requests == 1
    counted(prune(engine, Cutoffs(None, START_MS + 2 * DAY_MS), NOW_MS))
    told = usage(engine, since=noon, until=noon.replace(hour=3))
    assert (told.since, told.until) == ("2026-02-28T00:00:00.000Z", "2026-03-01T00:00:00.000Z")
    assert told.total.requests == 4
    younger = usage(engine, since=noon.replace(month=3, day=1))
    assert (younger.since, younger.total.requests) == ("2026-03-01T02:30:00.000Z", 5)


def test_a_day_stays_while_one_of_its_jobs_can_be_reopened(engine: Engine) -> None:
    put_job(engine, OLD_MS)
    put_batch(engine, "half", OLD_MS)
    left = put_job(engine, OLD_MS, batch_id="half", batch_line=0)
    put_job(engine, YOUNG_MS, batch_id="half", batch_line=1)
    found = [step for step in prune(engine, ALL, NOW_MS) if isinstance(step, UnprunedDay)]
    assert found == [UnprunedDay(FIRST, f"job {left} is still on record")]
    assert len(ids_in(engine, "audit")) == 3


def test_a_day_whose_money_cannot_be_rolled_up_stays(engine: Engine) -> None:
    put(engine, line(cost_pico_usd=2**62), line(cost_pico_usd=2**62))
    found = list(prune(engine, ALL, NOW_MS))
    assert found == [UnprunedDay(FIRST, "its usage cannot be rolled up")]
    assert usage(engine).total.requests == 2


def test_attempts_go_with_the_audit_line_of_their_job(engine: Engine) -> None:
    old = put_job(engine, OLD_MS)
    stay = {put_job(engine, None, started_ms=OLD_MS), put_job(engine, YOUNG_MS)}
    dry = counted(prune(engine, ALL, NOW_MS, dry_run=True))
    assert counted(prune(engine, ALL, NOW_MS)) == dry == {"jobs": 1, "audit": 1, "attempts": 1}
    assert ids_in(engine, "attempts") == stay
    assert old not in ids_in(engine, "audit")


def test_what_a_budget_has_spent_stays_when_jobs_are_pruned(engine: Engine) -> None:
    put_job(engine, OLD_MS + 100, started_ms=OLD_MS, cost_pico_usd=5)
    put_job(engine, OLD_MS + DAY_MS, started_ms=OLD_MS, cost_pico_usd=7, user_id="u")
    put_job(engine, OLD_MS, started_ms=OLD_MS - 10, cost_pico_usd=11)  # began the day before
    put_job(engine, None, started_ms=OLD_MS + 5, cost_pico_usd=13)
    days = [str(day) for day in (20260226, FIRST, 20260228)]
    before = [spent_on(engine, day) for day in days]
    assert before == [{("acme", "", ""): 11}, {("acme", "", ""): 18, ("acme", "u", ""): 7}, {}]
    assert counted(prune(engine, ALL_JOBS, NOW_MS)) == {"jobs": 3}
    assert [spent_on(engine, day) for day in days] == before


def test_two_that_prune_at_once_delete_each_row_once(engine: Engine) -> None:
    for n in range(150):
        put_job(engine, OLD_MS + n)
    put(engine, *(line(OLD_MS + n) for n in range(600)))
    before = reports(engine)
    faults: list[BaseException] = []

    def pass_through() -> None:
        try:
            list(prune(engine, ALL, NOW_MS))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=pass_through) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert faults == []
    assert ids_in(engine, "jobs") == ids_in(engine, "audit") == set()
    with engine.connect() as connection:
        assert connection.scalars(select(usage_summed.c.lines)).all() == [0]
    assert reports(engine) == before


def test_workers_on_postgresql_are_not_held_up_by_a_deletion(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    old, busy = put_job(engine, OLD_MS), put_job(engine, None, started_ms=OLD_MS)
    with deleting(engine) as connection:
        connection.execute(jobs.delete().where(jobs.c.id == old))
        connection.execute(audit.delete().where(audit.c.job_id == old))
        # Meanwhile jobs are submitted, claimed and ended; a lock would fail after half a second.
        put_job(engine, None, started_ms=YOUNG_MS)
        with engine.begin() as worker:
            worker.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")
            ended = jobs.update().where(jobs.c.id == busy)
            worker.execute(ended.values(status="succeeded", finished_at_ms=YOUNG_MS))
    assert old not in ids_in(engine, "jobs")
    engine.dispose()


def test_zero_days_keep_rows_for_ever_and_audit_lines_live_as_long_as_jobs() -> None:
    assert cutoffs(1000, 10, 400) == Cutoffs(990, 600)
    assert cutoffs(1000, 500, 400) == Cutoffs(500, 500)
    assert cutoffs(1000, 0, 400) == Cutoffs(None, None)
    assert cutoffs(1000, 10, 0) == Cutoffs(990, None)


def test_many_rows_of_one_moment_are_all_found(engine: Engine) -> None:
    for n in range(230):
        put_job(engine, OLD_MS + 1, started_ms=OLD_MS, job_id=f"same-{n:03d}")
    assert counted(prune(engine, ALL_JOBS, NOW_MS)) == {"jobs": 230}
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(jobs)) == 0
    assert begin_ms(FIRST) == OLD_MS
