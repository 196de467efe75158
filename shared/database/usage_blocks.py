"""Blocks of the roll-up: sums of a month that is over, and of the part of a day that has passed.

A reader takes the rows of a block in place of those of all days of the month, or of the audit lines
of that part. Blocks lie in `usage_days` under numbers that no day has, so releases that know
nothing of them read past them and write beside them.

The block of a month is made from the roll-ups of its days. One more row, its mark, names these days
and when they were rolled up. The block counts while `usage_summed` says the same.

The part of a day has a row in `usage_summed`, with its number of lines below zero and the end of
the part as the time. It counts while there are as many lines. Whoever takes the day out of the
roll-up, or rolls it up, ends the part, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Table,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
)

from headgate.shared.database.engine import snapshot
from headgate.shared.database.many_rows import insert_all
from headgate.shared.database.tables import usage_days, usage_summed
from headgate.shared.database.usage_rollup import (
    COUNTS,
    DIMENSIONS,
    MAX_INT64,
    MONEY,
    ROWS_AT_ONCE,
    VIEW,
    VIEWS,
    Sums,
    begin_ms,
    changing,
    exactly,
    lines_of,
    rows_of,
    sums_of,
    whole_counts,
)
from headgate.shared.stats import histogram

PARTS = 10 * VIEW
"""A row of a part has this number plus that of its day and view."""

MONTHS, MONTH_VIEW = 5 * VIEW, 1_000_000
"""A row of month 202611 has MONTHS plus n * MONTH_VIEW plus the month, for view n."""

MONTH_VIEWS: tuple[frozenset[str], ...] = (
    frozenset(("tenant", "model", "template")),
    frozenset(("tenant", "user_id")),
    frozenset(("tenant", "user_id", "model", "template")),
)
"""Without batches, which seldom last longer than a day: a month has as many rows of them."""

_MARKS = MONTHS + 9 * MONTH_VIEW


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a day from its beginning to a moment (Unix ms), and its number of audit lines."""

    day: int
    until_ms: int
    lines: int


# Rows of the roll-up, summed.


def rolled_up(
    connection: Connection,
    keys: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool],
) -> Iterator[tuple[tuple[Any, ...], list[int], bytes]]:
    """Yield each key of these rows of `usage_days`, with its sums and its packed latencies.

    The sums are in the order of COUNTS. No key yields one sum of all rows, if there are any.
    """
    table = usage_days.c
    is_sqlite = connection.dialect.name == "sqlite"
    joined: ColumnElement[Any] = (
        func.group_concat(func.hex(table.latencies), literal_column("''"))
        if is_sqlite
        else func.string_agg(table.latencies, literal_column("''::bytea"))
    )
    sums: list[ColumnElement[int]] = [
        func.coalesce(func.sum(table[name]), 0).label(name) for name in COUNTS if name not in MONEY
    ]
    sums += exactly({name: table[name] for name in MONEY})
    # One query: the second of two would read all rows again.
    query = select(*keys, *sums, joined).where(where).group_by(*keys)
    if not keys:  # without groups SQL gives one row even if there is nothing to sum
        query = query.having(func.count() > 0)
    counts_of = whole_counts([column.name for column in sums], COUNTS)
    first, end = len(keys), len(keys) + len(sums)
    for row in connection.execute(query).all():
        packed = bytes.fromhex(row[end] or "") if is_sqlite else bytes(row[end] or b"")
        yield tuple(row[:first]), counts_of(row[first:end]), packed


# Months.


def month_view_of(needed: Collection[str]) -> int | None:
    """Return the view of months with the fewest rows that has these dimensions; None if none."""
    return next((n for n, view in enumerate(MONTH_VIEWS) if view.issuperset(needed)), None)


def months_of(connection: Connection, days: Collection[int]) -> dict[int, list[int]]:
    """Return the months that have a block of just these days, with their days."""
    made = _made(connection)
    known = {day: at_ms for day, at_ms in made.items() if day in set(days)}
    wanted = _by_month(known)
    marks = _marks(connection)
    return {
        month: [day for day, _ in found]
        for month, found in wanted.items()
        if marks.get(month) == _stamp(found)
    }


def stale_months(connection: Connection, until_day: int) -> list[int]:
    """Return the months before the one of this day whose block is missing or of other days."""
    marks = _marks(connection)
    return [
        month
        for month, found in sorted(_by_month(_made(connection)).items())
        if month < until_day // 100 and marks.get(month) != _stamp(found)
    ]


def sum_month(engine: Engine, month: int) -> bool:
    """Make the block of the month from its days, and return whether that was possible.

    False means that nothing was changed: a day was rolled up meanwhile, or a sum exceeds 64 bits.
    """
    days = usage_days.c.day.between(month * 100, month * 100 + 99)
    rows = []
    with snapshot(engine) as connection:
        stamp = _stamp(_by_month(_made(connection)).get(month, []))
        for view, names in enumerate(MONTH_VIEWS):
            ordered = [name for name in DIMENSIONS if name in names]
            for key, counts, packed in rolled_up(
                connection, [usage_days.c[name] for name in ordered], days
            ):
                number = MONTHS + view * MONTH_VIEW + month
                sums = dict(zip(COUNTS, counts, strict=True))
                latencies = histogram.packed(histogram.added([packed]))
                rows.append(_row(number, dict(zip(ordered, key, strict=True)), sums, latencies))
    if any(max(row[name] for name in MONEY) > MAX_INT64 for row in rows):
        return False
    rows.append(_row(_MARKS + month, {}, dict.fromkeys(COUNTS, 0), stamp))
    with changing(engine) as connection:
        if _stamp(_by_month(_made(connection)).get(month, [])) != stamp:
            return False
        numbers = [MONTHS + view * MONTH_VIEW + month for view in range(len(MONTH_VIEWS))]
        _replace(connection, usage_days.c.day.in_([*numbers, _MARKS + month]), rows)
    return True


def _row(
    number: int, key: dict[str, str], sums: dict[str, int], latencies: bytes
) -> dict[str, Any]:
    return {"day": number, **dict.fromkeys(DIMENSIONS, ""), **key, **sums, "latencies": latencies}


def _made(connection: Connection) -> dict[int, int]:
    """Return the days that are rolled up, with the moment of that (Unix ms)."""
    query = select(usage_summed.c.day, usage_summed.c.summed_at_ms)
    found = connection.execute(query.where(usage_summed.c.lines >= 0))
    return {row.day: row.summed_at_ms for row in found}


def _by_month(made: dict[int, int]) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for day, at_ms in sorted(made.items()):
        found[day // 100].append((day, at_ms))
    return found


def _stamp(days: list[tuple[int, int]]) -> bytes:
    return orjson.dumps(days)


def _marks(connection: Connection) -> dict[int, bytes]:
    query = select(usage_days.c.day, usage_days.c.latencies)
    of_marks = usage_days.c.day.between(_MARKS, _MARKS + MONTH_VIEW - 1)
    found = connection.execute(query.where(of_marks))
    return {row.day - _MARKS: bytes(row.latencies) for row in found}


# Parts of days.


def parts(connection: Connection) -> list[Part]:
    """Return the parts whose lines are as many as they were, the oldest first."""
    query = select(usage_summed).where(usage_summed.c.lines < 0).order_by(usage_summed.c.day)
    found = [Part(row.day, row.summed_at_ms, -row.lines) for row in connection.execute(query)]
    return [part for part in found if _lines(connection, part) == part.lines]


def extend_part(
    engine: Engine, day: int, until_ms: int, least: int = 1, share: float = 0.0
) -> bool:
    """Make the part of the day up to this time (Unix ms), and return whether it was changed.

    The lines that its last part has are counted, but not read again. Nothing is done for a day that
    is rolled up, or for fewer new lines than `least` or than this share of those of the last part.
    """
    with snapshot(engine) as connection:
        known = _known(connection, day)
        from_ms, lines = (known.until_ms, known.lines) if known else (begin_ms(day), 0)
        new = lines_of(connection, from_ms, until_ms).get(day, 0)
        if new < max(least, lines * share) or _is_rolled_up(connection, day):
            return False
        is_whole = known is not None and _lines(connection, known) == lines
        _, found = sums_of(connection, from_ms if is_whole else begin_ms(day), until_ms)
        if is_whole:
            _add_rows(connection, day, found)
    rows = rows_of(found, PARTS + day)
    if rows is None:
        return False
    lines = sum(sums["requests"] for (view, *_), (sums, _) in found.items() if view == 0)
    part = Part(day, until_ms, lines)
    with changing(engine) as connection:
        is_changed = _known(connection, day) != known or _lines(connection, part) != lines
        if is_changed or _is_rolled_up(connection, day):
            return False
        numbers = [PARTS + view * VIEW + day for view in range(len(VIEWS))]
        _replace(connection, or_(usage_days.c.day.in_(numbers), _of_no_part(connection)), rows)
        connection.execute(delete(usage_summed).where(usage_summed.c.day == day))
        row = {"day": day, "lines": -lines, "summed_at_ms": until_ms}
        connection.execute(insert(usage_summed), row)
    return True


def _known(connection: Connection, day: int) -> Part | None:
    query = select(usage_summed).where(usage_summed.c.day == day, usage_summed.c.lines < 0)
    row = connection.execute(query).one_or_none()
    return Part(day, row.summed_at_ms, -row.lines) if row else None


def _lines(connection: Connection, part: Part) -> int:
    return lines_of(connection, begin_ms(part.day), part.until_ms).get(part.day, 0)


def _is_rolled_up(connection: Connection, day: int) -> bool:
    """Return whether the day has, or had, a roll-up: its lines may be deleted (see `prune`)."""
    query = select(usage_days.c.day).where(usage_days.c.day == day).limit(1)
    return connection.scalar(query) is not None


def _add_rows(connection: Connection, day: int, found: Sums) -> None:
    """Add the rows of the day's part to these sums."""
    numbers = [PARTS + view * VIEW + day for view in range(len(VIEWS))]
    query = select(usage_days).where(usage_days.c.day.in_(numbers))
    for row in connection.execute(query).mappings():
        group = ((row["day"] - PARTS) // VIEW, *(row[name] for name in DIMENSIONS))
        sums, latencies = found.setdefault(group, (Counter(), Counter()))
        sums.update({name: row[name] for name in COUNTS})
        latencies.update(histogram.added([row["latencies"]]))


def _of_no_part(connection: Connection) -> ColumnElement[bool]:
    """Return the condition for rows of parts whose days are rolled up by now."""
    days = connection.scalars(select(usage_summed.c.day).where(usage_summed.c.lines < 0)).all()
    views = range(len(VIEWS))
    numbers = [PARTS + view * VIEW + day for view in views for day in days]
    return (usage_days.c.day >= PARTS) & usage_days.c.day.not_in(numbers)


def _replace(
    connection: Connection, old: ColumnElement[bool], rows: Sequence[dict[str, Any]]
) -> None:
    table: Table = usage_days
    connection.execute(delete(table).where(old))
    for first in range(0, len(rows), ROWS_AT_ONCE):
        insert_all(connection, table, rows[first : first + ROWS_AT_ONCE])
