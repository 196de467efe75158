"""Sums of audit lines, and those of whole days (UTC) that are kept in `usage_days`.

The audit lines are the truth. What `usage_days` holds of a day is a function of that day's lines
alone, so it may be made again at any time: a reader takes the days that are in `usage_summed` from
there, and all others from the audit lines.

`usage_days` holds each day several times: by all that can be asked for, and summed over what most
questions leave out (VIEWS). A row of view n has `day` + n * VIEW; what it is summed over is empty.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
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

from headgate.shared.database.engine import insert_all, snapshot, writing
from headgate.shared.database.tables import audit, usage_days, usage_summed
from headgate.shared.stats import histogram
from headgate.shared.stats.sketch import bucket

DAY_MS = 86_400_000

ROWS_AT_ONCE = 1000

_SPLIT = 10**9
_MOST = 2**63 - 1
_EPOCH = date(1970, 1, 1)
_NONE: ColumnElement[str] = literal_column("''")

#: What can be asked for, as the audit lines say it; empty text stands for none.
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
"""What each view tells apart. With 500 users and 4 models a day has 4,000 rows of view 0, and 80,
500 and 160 of the others."""

#: Of which amounts there is more than 64 bits may hold: 9.2 million USD.
MONEY = ("cost_pico_usd", "saved_pico_usd")

_succeeded = audit.c.status == "succeeded"

TIMED = _succeeded & audit.c.latency_ms.is_not(None)
"""Lines whose latency counts: of what failed it tells nothing that a caller waited for."""


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


def _total(column: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(column), 0)


def exactly(columns: Mapping[str, ColumnElement[int]]) -> list[ColumnElement[int]]:
    """Sums of these columns whose halves fit: SQLite's SUM refuses more than 64 bits."""
    parts: list[ColumnElement[int]] = []
    for name, column in columns.items():
        # A literal, not a parameter: PostgreSQL would take its type for a wider one.
        split: ColumnElement[int] = literal_column(str(_SPLIT))
        parts.append(_total(column.op("/")(split)).label(f"{name}_high"))
        parts.append(_total(column.op("%")(split)).label(f"{name}_low"))
    return parts


def whole(row: Mapping[str, Any]) -> dict[str, int]:
    """The sums of a row as whole numbers, its halves put together; PostgreSQL gives Decimals."""
    found = {}
    for name, value in row.items():
        if name.endswith("_high"):
            name = name.removesuffix("_high")
            value = int(value) * _SPLIT + int(row[f"{name}_low"])
        elif name.endswith("_low"):
            continue
        found[name] = int(value)
    return found


#: One line of sums over audit lines; the names are those of `usage_days`.
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
    """How often each bucket of latency is met among the lines, by key.

    Lines of the release before have no bucket: theirs is found from their latency.
    """
    found: dict[tuple[Any, ...], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    unplaced = False
    bin_ = audit.c.latency_bin
    query = select(*keys, bin_, func.count()).where(where, TIMED).group_by(*keys, bin_)
    for *key, index, count in connection.execute(query):
        if index is None:
            unplaced = True
        else:
            found[tuple(key)][index] += count
    if unplaced:
        query = select(*keys, audit.c.latency_ms, func.count()).where(where, TIMED, bin_.is_(None))
        for *key, latency_ms, count in connection.execute(
            query.group_by(*keys, audit.c.latency_ms)
        ):
            found[tuple(key)][bucket(latency_ms)] += count
    return found


# Days are the numbers that `usage_days` has: 20261121.


def day_of(at_ms: int) -> int:
    """The day (UTC) of this moment."""
    return day_number(at_ms // DAY_MS)


def day_number(days: int) -> int:
    """The day that begins this many days after the first of 1970."""
    found = _EPOCH + timedelta(days=days)
    return found.year * 10_000 + found.month * 100 + found.day


def begin_ms(day: int) -> int:
    """The moment at which the day begins."""
    found = date(day // 10_000, day // 100 % 100, day % 100)
    return (found - _EPOCH).days * DAY_MS


def lines_of(connection: Connection, from_ms: int, until_ms: int) -> dict[int, int]:
    """How many audit lines each day has that ended within this time; days without are left out."""
    ended = audit.c.finished_at_ms
    number = ended.op("/")(literal_column(str(DAY_MS)))
    query = select(number, func.count()).where(ended >= from_ms, ended < until_ms).group_by(number)
    return {day_number(int(days)): count for days, count in connection.execute(query)}


def summed(connection: Connection) -> dict[int, int]:
    """The days that are in `usage_days`, and how many audit lines each of them had then."""
    query = select(usage_summed.c.day, usage_summed.c.lines)
    return {row.day: row.lines for row in connection.execute(query)}


def view_of(needed: Collection[str]) -> int:
    """The view with the fewest rows that tells these apart."""
    return next(n for n in (1, 2, 3, 0) if VIEWS[n].issuperset(needed))


def stale(connection: Connection, from_ms: int, until_ms: int) -> list[int]:
    """Days of this time whose sums are missing, or are not of all their lines; the oldest first."""
    now = lines_of(connection, from_ms, until_ms)
    then = {day: n for day, n in summed(connection).items() if from_ms <= begin_ms(day) < until_ms}
    return sorted(day for day in now | then if now.get(day, 0) != then.get(day, 0))


def sum_day(engine: Engine, day: int, at_ms: int) -> bool:
    """The day's sums are those of its audit lines; False, and no change, where it has to be later.

    That is so where lines came meanwhile, or an amount of one row exceeds 64 bits.
    """
    first_ms = begin_ms(day)
    ended = audit.c.finished_at_ms
    of_day = (ended >= first_ms) & (ended < first_ms + DAY_MS)
    keys = [column.label(name) for name, column in DIMENSIONS.items()]
    found: dict[tuple[Any, ...], tuple[Counter[str], Counter[int]]] = {}
    lines = 0
    with snapshot(engine) as connection:
        spread = latencies(connection, list(DIMENSIONS.values()), of_day)
        query = select(*keys, *MEASURES).where(of_day).group_by(*DIMENSIONS.values())
        for row in connection.execute(query).mappings():
            key = tuple(row[name] for name in DIMENSIONS)
            sums = whole({name: row[name] for name in row if name not in DIMENSIONS})
            lines += sums["requests"]
            for seen in _in_views(key):
                found.setdefault(seen, (Counter(), Counter()))
                found[seen][0].update(sums)
                found[seen][1].update(spread.get(key, {}))
    if any(max(sums.values()) > _MOST for sums, _ in found.values()):
        return False
    rows = [
        {"day": day + view * VIEW, **dict(zip(DIMENSIONS, key, strict=True)), **sums}
        | {"latencies": histogram.packed(counts)}
        for (view, *key), (sums, counts) in found.items()
    ]
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            # Who takes back a line (`unsum`) waits for us, or we for them.
            connection.execute(text("LOCK TABLE usage_summed IN EXCLUSIVE MODE"))
        if lines_of(connection, first_ms, first_ms + DAY_MS).get(day, 0) != lines:
            return False
        days = [day + view * VIEW for view in range(len(VIEWS))]
        connection.execute(delete(usage_days).where(usage_days.c.day.in_(days)))
        for first in range(0, len(rows), ROWS_AT_ONCE):
            insert_all(connection, usage_days, rows[first : first + ROWS_AT_ONCE])
        _unsum(connection, day)
        summed_now = {"day": day, "lines": lines, "summed_at_ms": at_ms}
        connection.execute(insert(usage_summed), summed_now)
    return True


def _in_views(key: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The key as each view has it, behind the view's number."""
    for view, kept in enumerate(VIEWS):
        pairs = zip(DIMENSIONS, key, strict=True)
        yield (view, *(value if name in kept else "" for name, value in pairs))


def unsum(connection: Connection, ended_at_ms: int | None) -> None:
    """The day is read from its audit lines again, until it is summed anew.

    For a transaction that has just changed or deleted a line of a job that ended at this moment.
    """
    if ended_at_ms is not None:
        _unsum(connection, day_of(ended_at_ms))


def _unsum(connection: Connection, day: int) -> None:
    connection.execute(delete(usage_summed).where(usage_summed.c.day == day))
