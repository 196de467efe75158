"""The period of a usage query: from when to when, and which of its days have roll-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection

from headgate.producer.moments import ms_of, parse_day_or_moment
from headgate.shared.database.usage_blocks import Part, parts
from headgate.shared.database.usage_rollup import (
    DAY_MS,
    begin_ms,
    day_of,
    lines_of,
    pruned_days,
    summed,
)
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.ids import rfc3339

Moment = datetime | date | timedelta | str
"""A moment with its time zone, a day (UTC), how long ago, or a text such as "7d"."""

LATE_DAYS = 3
"""Queries check so many of the last rolled-up days for late lines; maintenance checks the rest."""


@dataclass(frozen=True, slots=True)
class Period:
    """From a moment (Unix ms; None: no bound) to just before another."""

    from_ms: int | None
    until_ms: int | None

    def as_text(self) -> tuple[str | None, str | None]:
        """Return both ends in RFC 3339, in UTC."""
        return rfc3339(self.from_ms), rfc3339(self.until_ms)


def between(since: Moment | None, until: Moment | None) -> Period:
    """Return the period; a day given as `until` is part of it. Raise InvalidRequest."""
    since = parse_day_or_moment(since, "since") if isinstance(since, str) else since
    until = parse_day_or_moment(until, "until") if isinstance(until, str) else until
    from_ms = None if since is None else max(0, _ms("since", since))
    until_ms = None if until is None else max(0, _ms("until", until))
    if until_ms is not None and _is_day(until):
        until_ms += DAY_MS
    if from_ms is not None and until_ms is not None and until_ms <= from_ms:
        begin = rfc3339(from_ms)
        raise InvalidRequest("until", rfc3339(until_ms), f"give a moment after since, {begin}")
    return Period(from_ms, until_ms)


def _is_day(moment: Moment | None) -> bool:
    return isinstance(moment, date) and not isinstance(moment, datetime)


def _ms(name: str, moment: Moment) -> int:
    if isinstance(moment, date) and not isinstance(moment, datetime):
        return int(datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()) * 1000
    return ms_of(name, moment)


def widened(connection: Connection, period: Period) -> Period:
    """Return the period with whole days at its ends if their audit lines are deleted.

    Of such a day only the sums are left.
    """
    ends = {ms for ms in (period.from_ms, period.until_ms) if ms is not None and ms % DAY_MS}
    gone = pruned_days(connection, set(map(day_of, ends))) if ends else set()
    from_ms, until_ms = period.from_ms, period.until_ms
    if from_ms in ends and day_of(from_ms) in gone:
        from_ms = begin_ms(day_of(from_ms))
    if until_ms in ends and day_of(until_ms) in gone:
        until_ms = begin_ms(day_of(until_ms)) + DAY_MS
    return Period(from_ms, until_ms)


def days_in(connection: Connection, period: Period) -> list[int]:
    """Return the days, in order, that lie whole in the period and have a complete roll-up."""
    known = summed(connection)
    days = sorted(
        day
        for day in known
        if (period.from_ms is None or period.from_ms <= begin_ms(day))
        and (period.until_ms is None or begin_ms(day) + DAY_MS <= period.until_ms)
    )
    if days:
        last = days[-LATE_DAYS:]
        counted = lines_of(connection, begin_ms(last[0]), begin_ms(last[-1]) + DAY_MS)
        late = {day for day in last if counted.get(day, 0) != known[day]}
        days = [day for day in days if day not in late]
    return days


def parts_in(connection: Connection, period: Period) -> list[Part]:
    """Return the parts of days that lie whole in the period, in order."""
    return [
        part
        for part in parts(connection)
        if (period.from_ms is None or period.from_ms <= begin_ms(part.day))
        and (period.until_ms is None or part.until_ms <= period.until_ms)
    ]


def gaps(period: Period, days: Sequence[int], parts: Sequence[Part]) -> list[Period]:
    """Return what is left of the period without these days and parts of days, in order."""
    spans = [(begin_ms(day), begin_ms(day) + DAY_MS) for day in days]
    spans += [(begin_ms(part.day), part.until_ms) for part in parts]
    found, from_ms = [], period.from_ms
    for begin, end in sorted(spans):
        if from_ms is None or from_ms < begin:
            found.append(Period(from_ms, begin))
        from_ms = end
    if period.until_ms is None or from_ms is None or from_ms < period.until_ms:
        found.append(Period(from_ms, period.until_ms))
    return found


def runs(days: Sequence[int]) -> list[tuple[int, int]]:
    """Return the first and last day of each run of consecutive days, in order."""
    found: list[tuple[int, int]] = []
    for day in days:
        if found and begin_ms(day) - begin_ms(found[-1][1]) == DAY_MS:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
