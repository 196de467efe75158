"""How long a provider asks us to wait: `Retry-After` in all the forms that are sent. Pure.

RFC 9110, 10.2.3: seconds, or an HTTP date. OpenAI and Azure send `retry-after-ms` besides. Gateways
also send Unix times, negative numbers and moments that have passed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

SHOWN_CHARS = 60
"""How much of a header a log line repeats; an HTTP date has 29 characters."""

MOST_MS = 2**52
"""The longest wait that is told on, in ms: Lua keeps it exact."""

UNIX_TIMES_S, NEAR_S = 1e9, 86_400.0
"""A number above the former (September 2001) that lies within a day of now is read as a moment."""

JUST_NOW_S = 60.0
"""A moment that passed so short ago has passed on its way: the wait is over."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """What a refusal says. `wait_ms`: None where it says nothing that can be obeyed.

    `note`: what is odd about the header, with its value; empty for a plain wait.
    """

    wait_ms: int | None = None
    note: str = ""


def read(headers: Mapping[str, str], now_s: float) -> RetryAfter:
    """Return how long to wait, rounded up, from header names in lower case.

    Reads `retry-after-ms`, then `retry-after` in seconds, then `retry-after` as an HTTP date.
    Moments are read against the answer's own `Date`, or else against `now_s` (Unix time).
    """
    now_s = _moment_s(headers.get("date", "")) or now_s
    unusable = RetryAfter()
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        found = _read_one(name, text, unit_s, now_s)
        if found.wait_ms is not None:
            return found
        unusable = found
    return unusable


def said(headers: Mapping[str, str]) -> str:
    """Return the header that `read` obeys as a log line shows it; empty without one."""
    for name in ("retry-after-ms", "retry-after"):
        if name in headers:
            return f"{name}: {_shown(headers[name])}"
    return ""


def _read_one(name: str, text: str, unit_s: float, now_s: float) -> RetryAfter:
    header = f"{name}: {_shown(text)}"
    try:
        seconds = float(text) * unit_s
    except ValueError:
        at_s = _moment_s(text) if unit_s == 1 else None
        if at_s is None:
            return RetryAfter(note=f"{header} is no time to wait")
        return _until(at_s, now_s, header)
    if not math.isfinite(seconds) or seconds < 0:
        return RetryAfter(note=f"{header} is no time to wait")
    if seconds / unit_s >= UNIX_TIMES_S:
        for at_s in (seconds, seconds / unit_s, seconds / 1000):
            if abs(at_s - now_s) <= NEAR_S:
                found = _until(at_s, now_s, header)
                return RetryAfter(found.wait_ms, found.note or f"{header} is read as a moment")
    return RetryAfter(_whole_ms(seconds))


def _until(at_s: float, now_s: float, header: str) -> RetryAfter:
    if at_s < now_s - JUST_NOW_S:
        return RetryAfter(note=f"{header} has passed")
    return RetryAfter(_whole_ms(max(0.0, at_s - now_s)))


def _whole_ms(seconds: float) -> int:
    return min(MOST_MS, math.ceil(seconds * 1000))


def _moment_s(text: str) -> float | None:
    """Return the Unix time of an HTTP date, which is in GMT; None if it is none."""
    if len(text) > SHOWN_CHARS:
        return None
    try:
        at = parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")
