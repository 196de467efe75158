"""Sums up usage over all jobs that have ended, from the database alone.

Months, days and parts of days with a roll-up are read from it, and what is left from audit lines.
So the figures include the last job, whatever has been rolled up so far.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, Unpack

from sqlalchemy import (
    Connection,
    Engine,
    and_,
    func,
    literal_column,
    or_,
    select,
    text,
    true,
)

from headgate.producer.usage.period import Period, between, days_in, gaps, parts_in, runs, widened
from headgate.producer.usage.report import BY, TIMES, UsageQuery, UsageReport, UsageRow
from headgate.shared.cost.price import usd_text
from headgate.shared.database.engine import snapshot
from headgate.shared.database.tables import audit, usage_days
from headgate.shared.database.usage_blocks import (
    MONTH_VIEW,
    MONTHS,
    PARTS,
    Part,
    month_view_of,
    months_of,
    rolled_up,
)
from headgate.shared.database.usage_rollup import (
    COUNTS,
    DAY_MS,
    DIMENSIONS,
    MEASURES,
    VIEW,
    day_number,
    latencies,
    view_of,
    whole_counts,
)
from headgate.shared.errors import InvalidRequest
from headgate.shared.stats import histogram

_COLUMN = {"user": "user_id", "batch": "batch_id"}
_COST, _REQUESTS = COUNTS.index("cost_pico_usd"), COUNTS.index("requests")


@dataclass(slots=True)
class _Sum:
    """The sums of one key, in the order of COUNTS, and its packed latencies."""

    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    packed: list[bytes] = field(default_factory=list)

    def add(self, counts: Sequence[int], packed: Sequence[bytes]) -> None:
        self.counts = list(map(add, self.counts, counts))
        self.packed += packed


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of the roll-up: those whose number, less `first`, lies in one of these ranges.

    Less `first` it is the day, or with `is_month` the month.
    """

    first: int
    ranges: Sequence[tuple[int, int]]
    is_month: bool = False


_Sums = dict[tuple[Any, ...], _Sum]


def usage(engine: Engine, by: str | Sequence[str] = (), **asked: Unpack[UsageQuery]) -> UsageReport:
    """Return what the jobs used that ended in the period; raise InvalidRequest.

    `by`: the names to group by. Rows are ordered by time if grouped by it, else by cost, the
    highest first.
    """
    names = group_names(by)
    period, wanted, limit = read_query(asked)
    found: _Sums = defaultdict(_Sum)
    with snapshot(engine) as connection:
        if connection.dialect.name == "postgresql":
            # JIT compilation takes longer than any of these queries; a day's sums fit in memory.
            connection.execute(text("SET LOCAL jit = off"))
            connection.execute(text("SET LOCAL work_mem = '64MB'"))
        period = widened(connection, period)
        days, parts = days_in(connection, period), parts_in(connection, period)
        for source in _rows_of(connection, names, wanted, days, parts):
            _add_rows(connection, names, source, wanted, found)
        # One query for each: for two ranges in one condition SQLite reads the whole table.
        for gap in gaps(period, days, parts):
            _add_lines(connection, names, gap, wanted, found)
    total = _Sum()
    for one in found.values():
        total.add(one.counts, one.packed)
    keys = sorted(found, key=lambda key: _by_cost(key, found[key]))[:limit]
    if times := [place for place, name in enumerate(names) if name in TIMES]:
        keys.sort(key=lambda key: [key[place] for place in times])
    rows = tuple(_row(names, key, found[key]) for key in keys)
    return UsageReport(names, *period.as_text(), rows, _row((), (), total))


def read_query(asked: UsageQuery) -> tuple[Period, dict[str, str], int | None]:
    """Return the period, the wanted values by column, and the number of rows."""
    only: dict[str, Any] = {**asked}
    period = between(only.pop("since", None), only.pop("until", None))
    limit = only.pop("limit", None)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InvalidRequest("limit", limit, "use a whole number of at least 1")
    for name, value in only.items():
        if name not in BY or name in TIMES:
            known = ", ".join(UsageQuery.__annotations__)
            raise InvalidRequest(name, value, f"is no known parameter; known: {known}")
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise InvalidRequest(name, value, "must be a text without the NUL character")
    return period, {_column(n): value for n, value in only.items() if value is not None}, limit


def _by_cost(key: tuple[Any, ...], one: _Sum) -> tuple[Any, ...]:
    return -one.counts[_COST], -one.counts[_REQUESTS], key


def group_names(by: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names to group by, each once; `user` is preceded by `tenant`."""
    if isinstance(by, str):
        by = [word.strip() for word in by.split(",") if word.strip()]
    names: list[str] = []
    for name in by:
        if name not in BY:
            raise InvalidRequest("by", name, f"use one or more of {', '.join(BY)}")
        if name == "user" and "tenant" not in by:
            names.append("tenant")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _column(name: str) -> str:
    return _COLUMN.get(name, name)


def _rows_of(
    connection: Connection,
    names: Sequence[str],
    wanted: Mapping[str, str],
    days: Sequence[int],
    parts: Sequence[Part],
) -> Iterator[_Rows]:
    """Yield the rows with the sums of these days and parts of days, as few as there are."""
    needed = {*map(_column, names), *wanted}
    view = VIEW * view_of(needed.difference(TIMES))
    month_view = month_view_of(needed.difference(("month",)))
    if month_view is not None and (months := months_of(connection, days)):
        first = MONTHS + MONTH_VIEW * month_view
        yield _Rows(first, [(month, month) for month in months], is_month=True)
        days = [day for day in days if day // 100 not in months]
    if days:
        yield _Rows(view, runs(days))
    if parts:
        yield _Rows(PARTS + view, [(part.day, part.day) for part in parts])


def _add_rows(
    connection: Connection,
    names: Sequence[str],
    rows: _Rows,
    wanted: Mapping[str, str],
    found: _Sums,
) -> None:
    """Add these rows of the roll-up to `found`."""
    table = usage_days.c
    time = table.day.op("-")(literal_column(str(rows.first)))
    times = {"month": time} if rows.is_month else {"day": time}
    times.setdefault("month", time.op("/")(literal_column("100")))
    keys = [times[name] if name in times else table[_column(name)] for name in names]
    ranges = (table.day.between(begin + rows.first, end + rows.first) for begin, end in rows.ranges)
    where = and_(or_(*ranges), *(table[name] == value for name, value in wanted.items()))
    for key, counts, packed in rolled_up(connection, keys, where):
        found[key].add(counts, [packed])


def _add_lines(
    connection: Connection,
    names: Sequence[str],
    period: Period,
    wanted: Mapping[str, str],
    found: _Sums,
) -> None:
    """Add the audit lines of this period to `found`."""
    ended = audit.c.finished_at_ms
    number = ended.op("/")(literal_column(str(DAY_MS)))
    keys = [number if name in TIMES else DIMENSIONS[_column(name)] for name in names]
    where = and_(
        true() if period.from_ms is None else ended >= period.from_ms,
        true() if period.until_ms is None else ended < period.until_ms,
        *(DIMENSIONS[name] == value for name, value in wanted.items()),
    )
    query = select(*keys, *MEASURES).where(where).group_by(*keys)
    if not keys:  # without groups SQL gives one row even if there is nothing to sum
        query = query.having(func.count() > 0)
    counts_of = whole_counts([column.name for column in MEASURES], COUNTS)
    for row in connection.execute(query).all():
        key = tuple(map(_as_rolled_up, names, row[: len(keys)]))
        found[key].add(counts_of(row[len(keys) :]), ())
    for key, spread in latencies(connection, keys, where).items():
        found[tuple(map(_as_rolled_up, names, key))].packed.append(histogram.packed(spread))


def _as_rolled_up(name: str, value: Any) -> Any:
    """Return the value as `usage_days` has it; `value`: of times, days since 1970."""
    if name == "day":
        return day_number(int(value))
    return day_number(int(value)) // 100 if name == "month" else value


def _row(names: Sequence[str], key: Sequence[Any], one: _Sum) -> UsageRow:
    counts = dict(zip(COUNTS, one.counts, strict=True))
    timed, (p50, p95, p99) = histogram.count_and_quantiles(b"".join(one.packed), (0.5, 0.95, 0.99))
    latency_ms = counts.pop("latency_ms")
    return UsageRow(
        key={name: _shown(name, value) for name, value in zip(names, key, strict=True)},
        cost_usd=usd_text(counts.pop("cost_pico_usd")),
        saved_usd=usd_text(counts.pop("saved_pico_usd")),
        hit_rate=_share(counts["cached"] + counts["shared"], counts["succeeded"]),
        error_rate=_share(counts["failed"], counts["requests"] - counts["cancelled"]),
        mean_latency_ms=round(latency_ms / timed) if timed else None,
        p50_latency_ms=p50,
        p95_latency_ms=p95,
        p99_latency_ms=p99,
        **counts,
    )


def _share(part: int, of: int) -> float | None:
    return round(part / of, 6) if of else None


def _shown(name: str, value: Any) -> str | None:
    if name == "day":
        return f"{value // 10_000}-{value // 100 % 100:02d}-{value % 100:02d}"
    if name == "month":
        return f"{value // 100}-{value % 100:02d}"
    return value or None
