"""Moments as callers write them: `1h` ago, a day, or a moment in ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.ids import now_ms

When = datetime | timedelta | str
"""A moment with its time zone, how long ago, or either as a text such as "1h"."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

FORMS = "30s, 10m, 2h, 7d, or a moment such as 2026-11-20T09:30:00Z"


def parse_moment(text: str, field: str) -> datetime | timedelta:
    """Return a moment (UTC if it names no zone), or how long ago it was; raise InvalidRequest.

    `text`: `30s`, `10m`, `2h`, `7d`, or a moment in ISO 8601.
    """
    if match := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", text.strip()):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequest(field, text, f"write {FORMS}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def parse_day_or_moment(text: str, field: str) -> date | timedelta:
    """Return a day for a text such as 2026-11-20; else what `parse_moment` returns."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text.strip()):
        return parse_moment(text, field)
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise InvalidRequest(field, text, f"there is no such day: {error}") from None


def ms_of(field: str, moment: object) -> int:
    """Return the moment as Unix ms; raise InvalidRequest for what is none."""
    if isinstance(moment, str):
        moment = parse_moment(moment, field)
    if isinstance(moment, timedelta):
        return now_ms() - int(moment.total_seconds() * 1000)
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        remedy = f"give a text ({FORMS}), a datetime with a time zone, or a timedelta"
        raise InvalidRequest(field, moment, remedy)
    return int(moment.timestamp() * 1000)
