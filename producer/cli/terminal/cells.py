"""Values as people read them on a terminal; a pipe gets each exactly as it is.

A cell holds both forms. `output.py` prints it: aligned, and in colour where the terminal has
colours and NO_COLOR is not set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

_COLOURS = {
    "succeeded": "green", "running": "cyan", "queued": "", "deferred": "magenta", "failed": "red",
    "cancelled": "yellow", "expired": "yellow", "healthy": "green", "degraded": "yellow",
    "down": "bold red", "shut": "red", "open": "", "half_open": "yellow", "ended": "green",
    "queueing": "cyan", "soft": "yellow", "spent": "red", "unread": "yellow", "answered": "green",
    "unknown": "yellow", "missing": "red",
}  # fmt: skip

_SMALL = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Cell:
    """A value: `exact` for programs, `shown` for people; numbers stand at the right."""

    exact: str
    shown: str
    style: str = ""
    is_number: bool = False

    def __str__(self) -> str:
        """Return the value for programs."""
        return self.exact


def number(value: int | None) -> Cell | None:
    """Return a whole number, shown with thousands: `12,345`."""
    return None if value is None else Cell(str(value), f"{value:,}", is_number=True)


def amount(text: str | None) -> Cell | None:
    """Return a number that is a text already, such as `12 %` or `3.5`."""
    return None if text is None else Cell(text, text, is_number=True)


def quantity(value: float) -> Cell:
    """Return a number that may have decimals, shown with thousands."""
    exact = f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return Cell(exact, f"{value:,.10g}" if value < 1e6 else f"{value:,.0f}", is_number=True)


def usd(text: str | None) -> Cell | None:
    """Return an amount of money, shown to four digits: `1,234.5678`, `<0.0001`."""
    return None if text is None else Cell(text, usd_shown(text), is_number=True)


def dollars(text: str | None, more: str = "") -> Cell:
    """Return an amount with its unit: `1.2346 USD`; `more` follows it."""
    if text is None:
        return Cell(f"unknown{more}", f"unknown{more}")
    return Cell(f"{text} USD{more}", f"{usd_shown(text)} USD{more}")


def usd_shown(text: str) -> str:
    """Return the decimal text with four digits after the point, and with thousands."""
    value = Decimal(text)
    if value and abs(value) < _SMALL:
        return "<0.0001" if value > 0 else ">-0.0001"
    return f"{value:,.4f}" if value else "0"


def state(name: str | None) -> Cell | None:
    """Return the name of a state, shown in its colour."""
    return None if name is None else Cell(name, name, _COLOURS.get(name, ""))


def moment(rfc3339: str | None, now_ms: int) -> Cell | None:
    """Return a moment, shown as how long ago it was, or in how long it will be."""
    if rfc3339 is None:
        return None
    return Cell(rfc3339, relative(rfc3339, now_ms))


def relative(rfc3339: str, now_ms: int) -> str:
    """Return a moment in words: `now`, `3 min ago`, `in 2 h`."""
    from headgate.shared.job.waiting_for import duration, ms_of

    seconds = (now_ms - (ms_of(rfc3339) or 0)) / 1000
    if abs(seconds) < 1:
        return "now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def milliseconds(value: int | None) -> Cell | None:
    """Return a time in ms, shown as `340 ms`, `2.1 s` or `3 min`; exactly, as a number of ms."""
    from headgate.shared.job.waiting_for import duration

    if value is None:
        return None
    if value < 1000:
        text = f"{value} ms"
    elif value < 100_000:
        text = f"{value / 1000:.1f} s"
    else:
        text = duration(value / 1000)
    return Cell(str(value), text, is_number=True)


_GROUPS = (18, 23)
"""Where the groups of digits of an id (a UUID) end; commands accept its beginning."""


def short_ids(ids: Sequence[str | None], prefix: str = "") -> list[Cell | None]:
    """Return ids that people see cut to a beginning by which each is known among the others.

    `prefix`: what stands before the digits, as in `batch_`.
    """
    known = {one for one in ids if one is not None}
    for length in _GROUPS:
        most = len(prefix) + length
        if len({one[:most] for one in known}) == len(known):
            return [None if one is None else Cell(one, one[:most]) for one in ids]
    return [None if one is None else Cell(one, one) for one in ids]
