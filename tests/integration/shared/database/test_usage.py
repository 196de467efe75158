"""Usage: the same to the last job and pico-dollar, whatever days have been summed, and when."""

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert, select, update

from headgate.producer.usage.query import usage
from headgate.producer.usage.report import BY, UsageReport, UsageRow
from headgate.shared.database.engine import snapshot
from headgate.shared.database.tables import audit, usage_days, usage_summed
from headgate.shared.database.usage_blocks import (
    MONTHS,
    PARTS,
    Part,
    extend_part,
    months_of,
    parts,
    stale_months,
    sum_month,
)
from headgate.shared.database.usage_rollup import (
    DAY_MS,
    VIEW,
    VIEWS,
    day_of,
    stale,
    sum_day,
    unsum,
)
from headgate.shared.errors import InvalidRequest
from headgate.workers.maintenance.usage_rollup import (
    HOUR_MS,
    LATE_MS,
    OVER_MS,
    PART_MS,
    PAUSE_MS,
    UsageRollup,
)
from tests.support.usage import FIRST, START_MS, line, new_ids, put

DAYS = 3
TENANTS, USERS, MODELS = ("acme", "omni"), (None, "u1", "u2"), ("gpt-4o", "gpt-4o-mini")


LINES = st.builds(
    line,
    at_ms=st.integers(START_MS, START_MS + DAYS * DAY_MS - 1),
    status=st.sampled_from(("succeeded", "succeeded", "failed", "cancelled", "expired")),
    tenant=st.sampled_from(TENANTS),
    user_id=st.sampled_from(USERS),
    batch_id=st.sampled_from((None, "b1")),
    template=st.sampled_from((None, "summary")),
    model=st.sampled_from(MODELS),
    model_used=st.sampled_from((None, *MODELS)),
    cached=st.sampled_from((None, "exact", "shared", "semantic")),
    fallback=st.booleans(),
    attempts=st.integers(0, 8),
    unknown_attempts=st.integers(0, 2),
    input_tokens=st.integers(0, 2**40),
    output_tokens=st.integers(0, 2**20),
    cost_pico_usd=st.none() | st.integers(0, 10**15) | st.integers(0, 2**62),
    saved_pico_usd=st.none() | st.integers(0, 2**62),
    latency_ms=st.none() | st.integers(0, 10**7),
)

COUNTS = (
    "attempts", "unknown_attempts", "input_tokens", "cached_input_tokens", "cache_write_tokens",
    "output_tokens", "reasoning_tokens",
)  # fmt: skip


def key_of(row: dict[str, Any], by: tuple[str, ...]) -> tuple[str | None, ...]:
    moment = datetime.fromtimestamp(row["finished_at_ms"] / 1000, UTC)
    values = {
        "tenant": row["tenant"], "user": row["user_id"], "template": row["template"],
        "model": row["model_used"] or row["model"], "batch": row["batch_id"],
        "day": moment.date().isoformat(), "month": moment.date().isoformat()[:7],
    }  # fmt: skip
    return tuple(values[name] for name in by)


def is_exactly(told: UsageRow, rows: list[dict[str, Any]]) -> None:
    """Check that the row equals these lines, counted one by one."""
    assert told.requests == len(rows)
    for status in ("succeeded", "failed", "cancelled", "expired"):
        assert getattr(told, status) == sum(row["status"] == status for row in rows)
    for name in COUNTS:
        assert getattr(told, name) == sum(row[name] for row in rows), name
    hits = [row["cached"] in ("exact", "semantic") for row in rows]
    shared = [row["cached"] == "shared" for row in rows]
    assert (told.cached, told.shared) == (sum(hits), sum(shared))
    assert told.fallbacks == sum(row["fallback"] for row in rows)
    assert told.unpriced == sum(row["cost_pico_usd"] is None for row in rows)
    for name, text in (("cost_pico_usd", told.cost_usd), ("saved_pico_usd", told.saved_usd)):
        assert Decimal(text).scaleb(12) == sum(row[name] or 0 for row in rows)
    timed = sorted(
        row["latency_ms"]
        for row in rows
        if row["status"] == "succeeded" and row["latency_ms"] is not None
    )
    told_quantiles = (told.p50_latency_ms, told.p95_latency_ms, told.p99_latency_ms)
    if not timed:
        assert (told.mean_latency_ms, *told_quantiles) == (None, None, None, None)
        return
    assert told.mean_latency_ms == round(sum(timed) / len(timed))
    for share, quantile in zip((50, 95, 99), told_quantiles, strict=True):
        true = timed[max(0, -(-share * len(timed) // 100) - 1)]
        assert quantile is not None
        assert true <= quantile <= true * 1.01


def is_brute_force(report: UsageReport, rows: list[dict[str, Any]]) -> None:
    groups = defaultdict(list)
    for row in rows:
        groups[key_of(row, report.by)].append(row)
    assert {tuple(one.key.values()) for one in report.rows} == set(groups)
    assert len(report.rows) == len(groups)
    for one in report.rows:
        is_exactly(one, groups[tuple(one.key.values())])
    is_exactly(report.total, rows)


SPANS = st.sampled_from(
    (
        (None, None),
        (date(2026, 2, 28), None),
        (date(2026, 2, 27), date(2026, 2, 28)),
        (datetime(2026, 2, 27, 13, 30, tzinfo=UTC), datetime(2026, 3, 1, 9, tzinfo=UTC)),
    )
)


def is_within(row: dict[str, Any], since: date | None, until: date | None) -> bool:
    ended = datetime.fromtimestamp(row["finished_at_ms"] / 1000, UTC)
    if since is not None and ended < _moment(since):
        return False
    if until is None or isinstance(until, datetime):
        return until is None or ended < until
    return ended.date() <= until


def _moment(day: date) -> datetime:
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day, tzinfo=UTC)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(
        st.tuples(
            st.lists(LINES, max_size=12),
            st.sets(st.integers(0, DAYS - 1)),
            st.booleans(),
            st.booleans(),
            st.none() | st.integers(1, DAYS * DAY_MS),
        ),
        max_size=4,
    ),
    by=st.lists(
        st.sampled_from(BY),
        unique=True,
        max_size=3,
    ),
    span=SPANS,
    model=st.sampled_from((None, "gpt-4o")),
    tenant=st.sampled_from((None, "acme")),
)
def test_usage_is_what_counting_each_line_says_whatever_was_summed_when(
    engine: Engine,
    rounds: list[tuple[list[dict[str, Any]], set[int], bool, bool, int | None]],
    by: list[str],
    span: tuple[date | None, date | None],
    tenant: str | None,
    model: str | None,
) -> None:
    with engine.begin() as connection:
        for table in (audit, usage_days, usage_summed):
            connection.execute(delete(table))
    kept: list[dict[str, Any]] = []
    for at_ms, (rows, days, has_months, takes_one_back, part_ms) in enumerate(rounds):
        if rows:
            rows = [row | {"job_id": f"job-{next(new_ids)}"} for row in rows]
            put(engine, *rows)
        kept += rows
        for day in sorted(days):
            sum_day(engine, day_of(START_MS + day * DAY_MS), at_ms)
        if has_months:
            for month in (202602, 202603):
                sum_month(engine, month)
        if part_ms is not None:
            extend_part(engine, day_of(START_MS + part_ms - 1), START_MS + part_ms)
        if takes_one_back and kept:  # as when a job that gave up is opened again
            gone = kept.pop(0)
            with engine.begin() as connection:
                connection.execute(delete(audit).where(audit.c.job_id == gone["job_id"]))
                unsum(connection, gone["finished_at_ms"])
    wanted = [
        row
        for row in kept
        if is_within(row, *span)
        and tenant in (None, row["tenant"])
        and model in (None, row["model_used"] or row["model"])
    ]
    report = usage(engine, by=by, since=span[0], until=span[1], tenant=tenant, model=model)
    is_brute_force(report, wanted)


def test_a_user_is_one_of_a_tenant(engine: Engine) -> None:
    put(engine, line(user_id="u"), line(user_id="u", tenant="omni", cost_pico_usd=5_000), line())
    report = usage(engine, by="user")
    assert [(dict(one.key), one.cost_usd) for one in report.rows] == [
        ({"tenant": "omni", "user": "u"}, "0.000000005"),
        ({"tenant": "acme", "user": None}, "0.000000001"),
        ({"tenant": "acme", "user": "u"}, "0.000000001"),
    ]
    assert usage(engine, by="user", user="u").total.requests == 2


def test_lines_of_the_release_before_have_no_bucket_and_count_all_the_same(engine: Engine) -> None:
    put(engine, *(line(latency_ms=n, latency_bin=None) for n in (10, 1_000)), line(latency_ms=500))
    for _ in range(2):
        total = usage(engine).total
        assert total.p50_latency_ms == pytest.approx(500, rel=0.01)
        assert total.p99_latency_ms == pytest.approx(1_000, rel=0.01)
        assert sum_day(engine, FIRST, 1)


def test_no_day_is_summed_whose_lines_change_meanwhile_or_whose_money_exceeds_64_bits(
    engine: Engine,
) -> None:
    put(engine, line(cost_pico_usd=2**62), line(cost_pico_usd=2**62))
    assert not sum_day(engine, FIRST, 1)
    assert Decimal(usage(engine).total.cost_usd).scaleb(12) == 2**63


def test_rates_are_hits_of_succeeded_jobs_and_errors_of_ended_jobs(engine: Engine) -> None:
    rows = [line(cached="exact"), line(cached="shared"), line(), line()]
    rows += [line(status="failed"), line(status="cancelled")]
    put(engine, *rows)
    total = usage(engine).total
    assert (total.hit_rate, total.error_rate) == (0.5, 0.2)
    nobody = usage(engine, tenant="nobody").total
    assert (nobody.requests, nobody.hit_rate, nobody.error_rate) == (0, None, None)
    assert nobody.cost_usd == "0"


def test_days_stand_in_their_order_and_a_limit_keeps_what_costs_most(engine: Engine) -> None:
    costs = (5, 1, 9)
    put(engine, *(line(START_MS + n * DAY_MS, cost_pico_usd=c) for n, c in enumerate(costs)))
    days = [one.key["day"] for one in usage(engine, by="day", limit=2).rows]
    assert days == ["2026-02-27", "2026-03-01"]
    months = usage(engine, by=("month",))
    assert [(one.key["month"], one.requests) for one in months.rows] == [
        ("2026-02", 2),
        ("2026-03", 1),
    ]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"by": "hour"}, "by"),
        ({"limit": 0}, "limit"),
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001 (no zone: that is the fault)
        ({"since": date(2026, 3, 1), "until": date(2026, 2, 1)}, "until"),
        ({"since": "yesterday"}, "since"),
        ({"colour": "red"}, "colour"),
        ({"tenant": 7}, "tenant"),
        ({"user": "a\0b"}, "user"),
    ],
)
def test_bad_input_is_named_with_its_remedy(
    engine: Engine, asked: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        usage(engine, **asked)
    assert caught.value.field == field
    assert caught.value.remedy


# The sums that the worker keeps.


class Clock:
    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def days_summed(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        query = select(usage_summed.c.day).where(usage_summed.c.lines >= 0)
        return list(connection.scalars(query.order_by(usage_summed.c.day)))


async def test_a_worker_sums_each_day_that_is_over_one_in_a_round(engine: Engine) -> None:
    put(engine, *(line(START_MS + n * DAY_MS) for n in range(3)))
    clock = Clock(START_MS + 2 * DAY_MS + OVER_MS - 1)
    sums = UsageRollup(engine, clock)
    await sums.round()
    await sums.round()
    assert days_summed(engine) == [FIRST]
    clock.now_ms += 1
    await sums.round()
    assert days_summed(engine) == [FIRST, 20260228]
    await sums.round()
    assert days_summed(engine) == [FIRST, 20260228]


async def test_lines_that_came_later_are_noticed_within_the_hour(engine: Engine) -> None:
    put(engine, line())
    clock = Clock(START_MS + DAY_MS + OVER_MS)
    sums = UsageRollup(engine, clock)
    await sums.round()
    put(engine, line(cost_pico_usd=7))
    assert usage(engine).total.cost_usd == "0.000000001007"  # even before
    clock.now_ms += HOUR_MS
    await sums.round()
    with engine.connect() as connection:
        assert connection.scalars(select(usage_summed.c.lines)).all() == [2]
        assert stale(connection, 0, clock.now_ms) == []
    assert usage(engine).total.cost_usd == "0.000000001007"


async def test_a_day_that_cannot_be_summed_yet_is_left_for_the_next_look(engine: Engine) -> None:
    put(engine, line(cost_pico_usd=2**62), line(cost_pico_usd=2**62))
    clock = Clock(START_MS + DAY_MS + OVER_MS)
    sums = UsageRollup(engine, clock)
    for _ in range(3):
        await sums.round()
        clock.now_ms += PAUSE_MS
    assert days_summed(engine) == []


def numbers_of(engine: Engine) -> set[int]:
    """Return the numbers of all rows of the roll-up, of days and of blocks."""
    with engine.connect() as connection:
        return set(connection.scalars(select(usage_days.c.day).distinct()))


async def test_a_month_that_is_over_has_a_block_and_another_once_a_day_has_changed(
    engine: Engine,
) -> None:
    put(engine, *(line(START_MS + n * DAY_MS, user_id=f"u{n}") for n in range(3)))
    clock = Clock(START_MS + 2 * DAY_MS + OVER_MS)
    rollup = UsageRollup(engine, clock)
    for _ in range(3):  # two days, then the month; March goes on
        await rollup.round()
    with snapshot(engine) as connection:
        assert months_of(connection, [FIRST, 20260228]) == {202602: [FIRST, 20260228]}
        assert months_of(connection, [FIRST]) == {}, "only of all its days"
    by_month = [one.as_json() for one in usage(engine, ["user", "month"]).rows]
    late = line(cost_pico_usd=9, user_id="u0")
    put(engine, late)
    clock.now_ms += HOUR_MS
    await rollup.round()  # the day again
    with snapshot(engine) as connection:
        assert months_of(connection, [FIRST, 20260228]) == {}
        assert stale_months(connection, 20260302) == [202602]
    await rollup.round()
    with snapshot(engine) as connection:
        assert stale_months(connection, 20260302) == []
    found = [one.as_json() for one in usage(engine, ["user", "month"]).rows]
    assert found[1:] == by_month[1:]
    assert Decimal(found[0]["cost_usd"]).scaleb(12) == 1_009


async def test_a_month_is_read_from_its_block_alone(engine: Engine) -> None:
    put(engine, *(line(START_MS + n * DAY_MS) for n in range(3)))
    for day in (FIRST, 20260228, 20260301):
        assert sum_day(engine, day, 1)
    assert sum_month(engine, 202602)
    with engine.begin() as connection:  # what nobody reads may be missing
        of_february = usage_days.c.day % VIEW < 20260300
        connection.execute(delete(usage_days).where(usage_days.c.day < MONTHS, of_february))
    assert usage(engine, "user,model,month").total.requests == 3
    assert usage(engine, "batch").total.requests == 1, "batches are read by the day"


async def test_today_is_rolled_up_as_it_grows_and_its_lines_are_read_once(engine: Engine) -> None:
    clock = Clock(START_MS + 3_600_000)
    rollup = UsageRollup(engine, clock)
    put(engine, *(line(clock.now_ms - LATE_MS - n) for n in range(1, 4)))
    await rollup.round()
    put(engine, line(clock.now_ms))
    with snapshot(engine) as connection:
        assert parts(connection) == [Part(FIRST, clock.now_ms - LATE_MS, 3)]
    assert usage(engine, "user").total.requests == 4
    clock.now_ms += PAUSE_MS
    await rollup.round()
    with snapshot(engine) as connection:
        assert [part.lines for part in parts(connection)] == [3], "one line is not worth it"
    clock.now_ms += PART_MS
    await rollup.round()
    with snapshot(engine) as connection:
        assert parts(connection) == [Part(FIRST, clock.now_ms - LATE_MS, 4)]
    assert usage(engine, "user").total.requests == 4
    assert sum_day(engine, FIRST, clock.now_ms)
    put(engine, line(START_MS + DAY_MS))
    assert extend_part(engine, 20260228, START_MS + DAY_MS + 1)
    # The rows of the first day's part are gone, and nothing else is.
    views = [n * VIEW for n in range(len(VIEWS))]
    assert numbers_of(engine) == {FIRST + n for n in views} | {PARTS + 20260228 + n for n in views}


@pytest.mark.parametrize("change", ["late", "reopened", "moved"])
async def test_a_part_counts_no_more_once_its_lines_have_changed(
    engine: Engine, change: str
) -> None:
    row = line(batch_id="b1")
    put(engine, row, line())
    assert extend_part(engine, FIRST, START_MS + 1)
    with engine.begin() as connection:
        if change == "late":
            connection.execute(insert(audit), [line()])
        else:
            unsum(connection, START_MS)
        if change == "reopened":
            connection.execute(delete(audit).where(audit.c.job_id == row["job_id"]))
        elif change == "moved":
            connection.execute(update(audit).values(batch_id=None))
    counts = {"late": 3, "reopened": 1, "moved": 2}[change]
    assert usage(engine, "batch").total.requests == counts
    with snapshot(engine) as connection:
        assert parts(connection) == []
    put(engine, line(START_MS + 1))
    assert extend_part(engine, FIRST, START_MS + 2)
    report = usage(engine, "batch")
    assert report.total.requests == counts + 1
    assert (change == "late") == any(one.key["batch"] == "b1" for one in report.rows)


async def test_a_day_with_a_roll_up_has_no_part(engine: Engine) -> None:
    put(engine, line(), line())
    assert sum_day(engine, FIRST, 1)
    put(engine, line())
    assert not extend_part(engine, FIRST, START_MS + DAY_MS)
    assert days_summed(engine) == [FIRST]
    assert usage(engine).total.requests == 3
