"""Options that several commands share."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

PRIORITY = click.Choice(["interactive", "standard", "bulk"])


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(said: str, option: str = "--since") -> datetime | timedelta:
    """The moment (in UTC, without a zone), or how long ago; raises WrongUse."""
    from headgate.shared.errors import WrongUse

    if match := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", said):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2]])
    try:
        found = datetime.fromisoformat(said)
    except ValueError:
        remedy = "write 30s, 10m, 2h, 7d, or a moment such as 2026-11-20T09:30:00Z"
        raise WrongUse(option, said, remedy) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
