"""Reads what a provider's headers say about its limits; pure.

Sources: OpenAI's and Anthropic's rate-limit guides, headers of real answers quoted in public
issues, and the guides of Groq, Mistral and Cerebras, which speak OpenAI's dialect. 2026-11.

A header that is missing, malformed, absurd or contradictory is never an error: its measure is left
out. Both vendors report the state at the moment when they accepted the request: the request itself
is counted, and tokens that came back since then are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

from headgate.workers.provider import Measure, RateSeen, Reset


def seen(headers: Mapping[str, str], now_s: float) -> tuple[RateSeen, ...]:
    """Return the limits in the headers, each measure once. Header names are in lower case.

    `now_s` is Unix time. It may be wrong by hours: only resets that are days away are refused.
    """
    found: dict[str, RateSeen] = {}
    for one in (*_openai(headers), *_anthropic(headers, now_s)):
        known = found.get(one.measure)
        if known is not None:
            # OpenAI reports the tokens of organisation and project; the lower limit keeps both.
            limit, less = min(one.limit, known.limit), min(one, known, key=lambda o: o.remaining)
            one = RateSeen(one.measure, limit, less.remaining, one.grain, reset=less.reset)
        found[one.measure] = one
    return tuple(found.values())


# ---- OpenAI and compatible: x-ratelimit-{limit,remaining,reset}-<name>, reset as a duration

#: The headers of one limit: limit, remaining, reset.
Names = tuple[str, str, str]


def _names(name: str) -> Names:
    return (
        f"x-ratelimit-limit-{name}",
        f"x-ratelimit-remaining-{name}",
        f"x-ratelimit-reset-{name}",
    )


#: OpenAI's guide; `requests` is per minute or per day.
_REQUESTS_OPEN = _names("requests")
_TOKENS_OPEN = (_names("tokens"), _names("project-tokens"))
#: Names that include their unit: Mistral (`req-minute`, no reset) and Cerebras (`requests-day`).
_NAMED: tuple[tuple[Names, Measure], ...] = (
    (_names("req-minute"), "rpm"),
    (_names("requests-minute"), "rpm"),
    (_names("requests-day"), "rpd"),
    (_names("tokens-minute"), "tpm"),
)
_MINUTE_S, _DAY_S = 60.0, 86_400.0
#: Durations are exact to the millisecond, plain numbers at best to the second.
_WORDS_GRAIN_S, _NUMBER_GRAIN_S = 0.001, 1.0
#: A reset may differ by this share from what follows from limit and remaining.
_SLACK = 0.1


def _openai(headers: Mapping[str, str]) -> list[RateSeen]:
    found: list[RateSeen] = []
    pair = _pair(headers, _REQUESTS_OPEN, 1.0)
    if pair is not None:
        reset = _reset_open(headers, _REQUESTS_OPEN)
        measure = _unit(*pair, reset)
        if measure is not None:
            found.append(RateSeen(measure, *pair, 1.0, reset=reset))
    for names in _TOKENS_OPEN:
        pair, reset = _pair(headers, names, 1.0), _reset_open(headers, names)
        # A bucket that takes more than a minute to fill is no limit per minute.
        if pair is not None and reset is not None and _within_a_minute(reset):
            found.append(RateSeen("tpm", *pair, 1.0, reset=reset))
    for names, measure in _NAMED:
        pair = _pair(headers, names, 1.0)
        if pair is not None:
            reset = _reset_open(headers, names)
            is_usable = reset is not None and _within_a_minute(reset)
            found.append(RateSeen(measure, *pair, 1.0, reset=reset if is_usable else None))
    return found


def _reset_open(headers: Mapping[str, str], names: Names) -> Reset | None:
    found = duration_s(headers.get(names[2], ""))
    return None if found is None else Reset(*found)


def _within_a_minute(reset: Reset) -> bool:
    return reset.after_s <= _MINUTE_S * (1 + _SLACK) + reset.grain_s


def _unit(limit: float, remaining: float, reset: Reset | None) -> Measure | None:
    """Decide whether a limit of requests is per minute or per day; None if it fits neither.

    These buckets fill continuously, so the reset is the missing share of a minute or of a day. If
    one of 10,000 is missing, the bucket is full after 6ms or after 8.64s (OpenAI); if 30 of 14,400
    are missing, after 2m59.56s (Groq). A day is assumed only if the reset is exact to the
    millisecond and a minute does not fit. A limit per minute that is taken for a limit per day
    would stop all work for a day.
    """
    if reset is None:
        return None
    reset_s, grain_s = reset.after_s, reset.grain_s
    missing = limit - remaining

    def fits(window_s: float) -> bool:
        # The bucket holds fractions but the header whole requests, and one was counted just now.
        least = max(1.0, missing - 1) * window_s / limit * (1 - _SLACK) - grain_s
        most = (missing + 1) * window_s / limit * (1 + _SLACK) + grain_s
        return least <= reset_s <= most

    if fits(_MINUTE_S):
        return "rpm"
    if grain_s == _WORDS_GRAIN_S and fits(_DAY_S):
        return "rpd"
    # A bucket that holds less than a minute of the rate, or a window: Azure counts in windows and
    # reports the whole seconds until the next one.
    return "rpm" if reset_s <= _MINUTE_S else None


_DURATION = re.compile(
    r"(?=[0-9])(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?"
    r"(?:([0-9]{1,8}(?:\.[0-9]{1,9})?)(s|ms|us|\u00b5s|ns))?"
)
_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}
#: Up to 1e12: above what any provider gives, and exact in a float and in Lua.
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


def duration_s(text: str) -> tuple[float, float] | None:
    """Read `120ms`, `1s`, `6m0s`, `1h2m3.5s` or `12`; return seconds and their precision, or None.

    The precision is in seconds too.
    """
    if _NUMBER.fullmatch(text):
        return float(text), _NUMBER_GRAIN_S
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    days, hours, minutes, rest, unit = found.groups()
    whole_s = int(days or 0) * 86_400 + int(hours or 0) * 3600 + int(minutes or 0) * 60
    return whole_s + (float(rest) * _UNITS_S[unit] if rest else 0.0), _WORDS_GRAIN_S


# ---- Anthropic: anthropic-ratelimit-<name>-{limit,remaining,reset}, reset as a moment


def _group(name: str) -> Names:
    named = f"anthropic-ratelimit-{name}"
    return f"{named}-limit", f"{named}-remaining", f"{named}-reset"


_REQUESTS: tuple[Names, Measure, float] = (_group("requests"), "rpm", 1.0)
_TOKENS: tuple[Names, Measure, float] = (_group("tokens"), "tpm", 1000.0)
_INPUT: tuple[Names, Measure, float] = (_group("input-tokens"), "input_tpm", 1000.0)
_OUTPUT: tuple[Names, Measure, float] = (_group("output-tokens"), "output_tpm", 1000.0)
#: A bucket per minute is never days away from full, even if this machine's clock is wrong.
_FARTHEST_S = 3 * _DAY_S


def _anthropic(headers: Mapping[str, str], now_s: float) -> list[RateSeen]:
    found: list[RateSeen] = []
    # The `tokens` group repeats one of the other two, or their sum. So it is read only if alone.
    apart = _INPUT[0][0] in headers or _OUTPUT[0][0] in headers
    for names, measure, grain in (_REQUESTS, _INPUT, _OUTPUT) if apart else (_REQUESTS, _TOKENS):
        pair = _pair(headers, names, grain)
        reset_at_s = _moment_s(headers.get(names[2]))
        if pair is not None and reset_at_s is not None and abs(reset_at_s - now_s) <= _FARTHEST_S:
            reset = _reset_moment(headers, reset_at_s)
            found.append(RateSeen(measure, *pair, grain, reset=reset))
    return found


#: Both moments are whole seconds, so that their difference is exact to two.
_MOMENTS_GRAIN_S = 2.0


def _reset_moment(headers: Mapping[str, str], reset_at_s: float) -> Reset | None:
    """Return what is left at the answer's own `Date`: this machine's clock may be wrong.

    A moment that has passed is no time left, as in real answers. None without a date near it.
    """
    sent = headers.get("date", "")
    try:
        answered_at_s = parsedate_to_datetime(sent).timestamp() if len(sent) <= 40 else math.nan
    except (ValueError, OverflowError):
        return None
    left_s = round(reset_at_s - answered_at_s) if abs(reset_at_s - answered_at_s) < _DAY_S else None
    if left_s is None or left_s > _MINUTE_S + _MOMENTS_GRAIN_S:
        return None
    return Reset(max(0.0, float(left_s)), _MOMENTS_GRAIN_S, of_answer=True)


def _moment_s(text: str | None) -> float | None:
    """Return the Unix time of an RFC 3339 moment, or None."""
    if text is None or len(text) > 40:
        return None
    try:
        at = datetime.fromisoformat(text)
        return at.timestamp() if at.tzinfo is not None else None
    except (OverflowError, ValueError):
        return None


# ---- both


def _pair(headers: Mapping[str, str], names: Names, grain: float) -> tuple[float, float] | None:
    """Return limit and remaining, or None if they are not two numbers that fit together.

    Azure sends a limit of 0 or -1 for "unknown". Without rounding, the remaining amount lacks the
    request that is being answered: if nothing is lacking, the server does not count.
    """
    sent = headers.get(names[0])
    if sent is None:
        return None
    limit, remaining = _amount(sent), _amount(headers.get(names[1]))
    if limit is None or remaining is None or limit < 1:
        return None
    # Rounded to the thousand, 8,500 of 8,500 are sent as 9,000.
    if remaining > limit + grain / 2 or (grain <= 1 and remaining >= limit):
        return None
    return limit, min(limit, remaining)


def _amount(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    return float(text)
