"""Options that several commands share."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from datetime import datetime, timedelta

PRIORITY = click.Choice(["interactive", "standard", "bulk"])

MAX_TOKENS = click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum length of the answer in tokens.",
)
MAX_USD_PER_MILLION = click.option(
    "--max-usd-per-million", metavar="X",
    help="With auto: maximum price of 1,000,000 tokens, input or output, in USD.",
)  # fmt: skip
PREFER = click.option(
    "--prefer",
    type=click.Choice(["speed", "quality", "cost"]),
    help="With auto: what matters most (default: cost).",
)
TASKS = (
    "chat", "reasoning", "code", "research", "creative", "analysis", "summary", "translation",
    "vision",
)  # fmt: skip
"""As `Kind` in `headgate.shared.job.request`, which takes long to import."""

TASK = click.option(
    "--task",
    type=click.Choice(TASKS),
    help="With auto: the kind of task, if you know it (default: guessed).",
)
NO_CACHE = click.option(
    "--no-cache", is_flag=True,
    help="Ask for each request: use no cached answer, and share no call with an equal request.",
)  # fmt: skip

MAX_SAMPLES = 128
"""As in `headgate.shared.job.request`, which takes long to import."""


def finite(_context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    """Return the number; raise BadParameter for NaN and infinity, which a range lets through."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number", param=option)
    return value


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_seconds(text: str, option: str) -> float:
    """Return a duration in seconds; raise WrongUse.

    `text`: `90s`, `10m`, `2h`, `7d`, or a number of seconds.
    """
    from headgate.shared.errors import WrongUse

    if match := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", text):
        return float(match[1]) * _UNITS[match[2] or "s"]
    raise WrongUse(option, text, "write 90s, 10m, 2h or 7d, or a number of seconds")


def parse_moment(text: str, option: str = "--since") -> datetime | timedelta:
    """Return a moment (UTC if it names no zone), or how long ago it was; raise WrongUse.

    `text`: `30s`, `10m`, `2h`, `7d`, or a moment in ISO 8601.
    """
    from headgate.producer import moments

    return moments.parse_moment(text, option)
