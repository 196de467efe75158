"""Sums of audit lines, and the roll-up: sums of whole days (UTC) in `usage_days`.

The audit lines are the truth, and the roll-up of a day depends on its lines alone. So it may be
made again at any time, until the lines are deleted. A reader takes the days of `usage_summed` from
the roll-up, and all others from the audit lines.

`usage_days` holds each day several times: by all dimensions, and summed over those that most
queries leave out (VIEWS). A row of view n has the day plus n * VIEW; the dimensions that it is
summed over are empty.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
)

from headgate.shared.database.engine import snapshot, writing
from headgate.shared.database.many_rows import insert_all
from headgate.shared.database.tables import audit, usage_days, usage_summed
from headgate.shared.stats import histogram
from headgate.shared.stats.sketch import bucket

DAY_MS = 86_400_000

ROWS_AT_ONCE = 1000
MAX_INT64 = 2**63 - 1

_SPLIT = 10**9
_EPOCH = date(1970, 1, 1)
_NONE: ColumnElement[str] = literal_column("''")

#: What usage can be grouped by, as expressions over audit lines; an empty text stands for none.
DIMENSIONS: dict[str, ColumnElement[Any]] = {
    "tenant": audit.c.tenant,
    "user_id": func.coalesce(audit.c.user_id, _NONE),
    "model": func.coalesce(audit.c.model_used, audit.c.model),
    "template": func.coalesce(audit.c.template, _NONE),
    "batch_id": func.coalesce(audit.c.batch_id, _NONE),
}

VIEW = 100_000_000

VIEWS: tuple[frozenset[str], ...] = (
    frozenset(DIMENSIONS),
    frozenset(("tenant", "model", "template")),
    frozenset(("tenant", "user_id")),
    frozenset(("tenant", "model", "batch_id")),
)
"""The dimensions of each view. With 500 users and 4 models, a day has 4,000 rows of view 0, and 80,
500 and 160 rows of the others."""

#: Columns whose sums may exceed 64 bits, which is 9.2 million USD.
MONEY = ("cost_pico_usd", "saved_pico_usd")

#: The sums of a row of `usage_days`, in the order in which they are handed around.
COUNTS = (
    *(
        column.name
        for column in usage_days.columns
        if column.name not in ("day", "latencies", *DIMENSIONS, *MONEY)
    ),
    *MONEY,
)

_succeeded = audit.c.status == "succeeded"

TIMED = _succeeded & audit.c.latency_ms.is_not(None)
"""Audit lines whose latency counts: those of jobs that succeeded."""


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(column), 0)


def exactly(columns: Mapping[str, ColumnElement[int]]) -> list[ColumnElement[int]]:
    """Return two sums for each column, which together may exceed 64 bits.

    SQLite's SUM refuses a larger sum. `whole` puts the halves together.
    """
    parts: list[ColumnElement[int]] = []
    for name, column in columns.items():
        # A literal, because PostgreSQL would take a parameter for a wider type.
        split: ColumnElement[int] = literal_column(str(_SPLIT))
        parts.append(_total(column.op("/")(split)).label(f"{name}_high"))
        parts.append(_total(column.op("%")(split)).label(f"{name}_low"))
    return parts


def whole(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the sums of a row as int, with the halves put together; PostgreSQL gives Decimals."""
    found = {}
    for name, value in row.items():
        if name.endswith("_high"):
            name = name.removesuffix("_high")
            value = int(value) * _SPLIT + int(row[f"{name}_low"])
        elif name.endswith("_low"):
            continue
        found[name] = int(value)
    return found


def whole_counts(
    columns: Sequence[str], names: Sequence[str]
) -> Callable[[Sequence[Any]], list[int]]:
    """Return a function that does for rows of these columns what `whole` does, in less time.

    It returns the sums in the order of `names`.
    """
    place = {name: n for n, name in enumerate(columns)}
    plain = [place[name] for name in names if name in place]
    halves = [(place[f"{name}_high"], place[f"{name}_low"]) for name in names if name not in place]

    def counts_of(row: Sequence[Any]) -> list[int]:
        counts = [int(row[n]) for n in plain]
        return counts + [int(row[high]) * _SPLIT + int(row[low]) for high, low in halves]

    return counts_of


#: All sums over audit lines; the names are those of `usage_days`.
MEASURES: tuple[ColumnElement[int], ...] = (
    func.count().label("requests"),
    _count(_succeeded).label("succeeded"),
    _count(audit.c.status == "failed").label("failed"),
    _count(audit.c.status == "cancelled").label("cancelled"),
    _count(audit.c.status == "expired").label("expired"),
    _count(audit.c.cached.in_(("exact", "semantic"))).label("cached"),
    _count(audit.c.cached == "shared").label("shared"),
    _count(audit.c.fallback).label("fallbacks"),
    *(_total(audit.c[name]).label(name) for name in ("attempts", "unknown_attempts")),
    *(
        _total(audit.c[name]).label(name)
        for name in (
            "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens",
            "reasoning_tokens",
        )
    ),
    _count(audit.c.cost_pico_usd.is_(None)).label("unpriced"),
    func.coalesce(func.sum(audit.c.latency_ms).filter(TIMED), 0).label("latency_ms"),
    *exactly({name: audit.c[name] for name in MONEY}),
)  # fmt: skip


def latencies(
    connection: Connection, keys: Sequence[ColumnElement[Any]], where: ColumnElement[bool]
) -> dict[tuple[Any, ...], dict[int, int]]:
    """Return how many audit lines have each bucket of latency, by key.

    The key of a line has its values of `keys`. A line without a bucket, of an older release, gets
    the bucket of its latency.
    """
    found: dict[tuple[Any, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    some_have_none = False
    bin_ = audit.c.latency_bin
    query = select(*keys, bin_, func.count()).where(where, TIMED).group_by(*keys, bin_)
    for *key, index, count in connection.execute(query):
        if index is None:
            some_have_none = True
        else:
            found[tuple(key)][index] += count
    if some_have_none:
        query = select(*keys, audit.c.latency_ms, func.count()).where(where, TIMED, bin_.is_(None))
        for *key, latency_ms, count in connection.execute(
            query.group_by(*keys, audit.c.latency_ms)
        ):
            found[tuple(key)][bucket(latency_ms)] += count
    return found


# A day is a number as in `usage_days`: 20261121.


def day_of(at_ms: int) -> int:
    """Return the day (UTC) of this time in Unix ms."""
    return day_number(at_ms // DAY_MS)


def day_number(days: int) -> int:
    """Return the day that begins `days` days after 1970-01-01."""
    found = _EPOCH + timedelta(days=days)
    return found.year * 10_000 + found.month * 100 + found.day


def begin_ms(day: int) -> int:
    """Return the Unix ms at which the day begins."""
    found = date(day // 10_000, day // 100 % 100, day % 100)
    return (found - _EPOCH).days * DAY_MS


def lines_of(connection: Connection, from_ms: int, until_ms: int) -> dict[int, int]:
    """Return how many jobs have ended on each day of this time (Unix ms), without empty days."""
    ended = audit.c.finished_at_ms
    number = ended.op("/")(literal_column(str(DAY_MS)))
    query = select(number, func.count()).where(ended >= from_ms, ended < until_ms).group_by(number)
    return {day_number(int(days)): count for days, count in connection.execute(query)}


def summed(connection: Connection) -> dict[int, int]:
    """Return the days that are in the roll-up, with the number of audit lines they had then."""
    query = select(usage_summed.c.day, usage_summed.c.lines).where(usage_summed.c.lines >= 0)
    return {row.day: row.lines for row in connection.execute(query)}


def pruned_days(connection: Connection, days: Collection[int]) -> set[int]:
    """Return those of these days whose audit lines were deleted, all or some.

    Their roll-up counts more jobs than `usage_summed` says there are lines.
    """
    query = (
        select(usage_summed.c.day)
        .join(usage_days, usage_days.c.day == usage_summed.c.day)
        .where(usage_summed.c.day.in_(days))
        .group_by(usage_summed.c.day, usage_summed.c.lines)
        .having(func.sum(usage_days.c.requests) > usage_summed.c.lines)
    )
    return set(connection.scalars(query))


def view_of(needed: Collection[str]) -> int:
    """Return the view with the fewest rows that has these dimensions."""
    return next(n for n in (1, 2, 3, 0) if VIEWS[n].issuperset(needed))


def stale(connection: Connection, from_ms: int, until_ms: int) -> list[int]:
    """Return the days of this time whose roll-up is missing or incomplete, the oldest first."""
    now = lines_of(connection, from_ms, until_ms)
    then = {day: n for day, n in summed(connection).items() if from_ms <= begin_ms(day) < until_ms}
    return sorted(day for day in now | then if now.get(day, 0) != then.get(day, 0))


Group = tuple[Any, ...]
"""The number of a view, then the value of each dimension."""

Sums = dict[Group, tuple[Counter[str], Counter[int]]]
"""Of each group its sums and its latencies by bucket."""


def sum_day(engine: Engine, day: int, at_ms: int) -> bool:
    """Make the roll-up of the day from its audit lines, and return whether that was possible.

    False means that nothing was changed: a job has ended meanwhile, a sum exceeds 64 bits, or some
    of the day's audit lines are deleted (see shared/database/prune.py).
    """
    first_ms = begin_ms(day)
    with snapshot(engine) as connection:
        lines, found = sums_of(connection, first_ms, first_ms + DAY_MS)
    rows = rows_of(found, day)
    if rows is None:
        return False
    with changing(engine) as connection:
        if lines_of(connection, first_ms, first_ms + DAY_MS).get(day, 0) != lines:
            return False
        if pruned_days(connection, [day]):
            return False
        days = [day + view * VIEW for view in range(len(VIEWS))]
        connection.execute(delete(usage_days).where(usage_days.c.day.in_(days)))
        for first in range(0, len(rows), ROWS_AT_ONCE):
            insert_all(connection, usage_days, rows[first : first + ROWS_AT_ONCE])
        _unsum(connection, day)
        summed_now = {"day": day, "lines": lines, "summed_at_ms": at_ms}
        connection.execute(insert(usage_summed), summed_now)
    return True


@contextmanager
def changing(engine: Engine) -> Iterator[Connection]:
    """Give a transaction that changes the roll-up.

    Whoever takes a day out (`unsum`) waits for it, or it for them.
    """
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE usage_summed IN EXCLUSIVE MODE"))
        yield connection


def rows_of(found: Sums, day: int) -> list[dict[str, Any]] | None:
    """Return the rows of `usage_days` for these sums; None if one exceeds 64 bits.

    `day`: the number of the rows of view 0.
    """
    if any(max(sums.values()) > MAX_INT64 for sums, _ in found.values()):
        return None
    return [
        {"day": day + view * VIEW, **dict(zip(DIMENSIONS, key, strict=True)), **sums}
        | {"latencies": histogram.packed(counts)}
        for (view, *key), (sums, counts) in found.items()
    ]


def sums_of(connection: Connection, from_ms: int, until_ms: int) -> tuple[int, Sums]:
    """Return the number of audit lines of this time (Unix ms), and the sums of each group."""
    ended = audit.c.finished_at_ms
    of_time = (ended >= from_ms) & (ended < until_ms)
    by_key = latencies(connection, list(DIMENSIONS.values()), of_time)
    keys = [column.label(name) for name, column in DIMENSIONS.items()]
    query = select(*keys, *MEASURES).where(of_time).group_by(*DIMENSIONS.values())
    lines, found = 0, Sums()
    for row in connection.execute(query).mappings():
        key = tuple(row[name] for name in DIMENSIONS)
        sums = whole({name: row[name] for name in row if name not in DIMENSIONS})
        lines += sums["requests"]
        for group in _groups_of(key):
            found.setdefault(group, (Counter(), Counter()))
            found[group][0].update(sums)
            found[group][1].update(by_key.get(key, {}))
    return lines, found


def _groups_of(key: Sequence[str]) -> Iterator[Group]:
    """Yield the group of each view that this key belongs to."""
    for view, dimensions in enumerate(VIEWS):
        pairs = zip(DIMENSIONS, key, strict=True)
        yield (view, *(value if name in dimensions else "" for name, value in pairs))


def unsum(connection: Connection, ended_at_ms: int | None) -> None:
    """Take a day out of the roll-up, so that its audit lines are read until it is summed again.

    Call it in a transaction that changes or deletes the audit line of a job that ended at this time
    (Unix ms); None does nothing.
    """
    if ended_at_ms is not None:
        _unsum(connection, day_of(ended_at_ms))


def _unsum(connection: Connection, day: int) -> None:
    connection.execute(delete(usage_summed).where(usage_summed.c.day == day))
