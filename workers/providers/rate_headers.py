"""What a provider's headers say of its limits, in one form; pure.

Sources: OpenAI's and Anthropic's rate-limit guides, headers of real answers quoted in public
issues, and the guides of Groq, Mistral and Cerebras, which speak OpenAI's dialect. 2026-11.

Headers come from outside: whatever is missing, malformed, absurd or contradicts itself leaves its
measure out, and is never an error. Both vendors tell the state of the moment in which they took the
request in: the request is counted, and what came back since then is not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from headgate.workers.provider import Measure, RateSeen


def seen(headers: Mapping[str, str], now_s: float) -> tuple[RateSeen, ...]:
    """All limits that the headers tell, each measure once; names of headers in lower case.

    `now_s` is Unix time. It may be off by hours: only resets days away are refused by it.
    """
    found: dict[str, RateSeen] = {}
    for one in (*_openai(headers), *_anthropic(headers, now_s)):
        known = found.get(one.measure)
        if known is not None:
            # OpenAI tells the tokens of organisation and project; who stays below both keeps both.
            limit, remaining = min(one.limit, known.limit), min(one.remaining, known.remaining)
            one = RateSeen(one.measure, limit, remaining, one.grain)
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


#: OpenAI's guide; `requests` is of a minute or of a day.
_REQUESTS_OPEN = _names("requests")
_TOKENS_OPEN = (_names("tokens"), _names("project-tokens"))
#: Names that tell their unit: Mistral (`req-minute`, no reset) and Cerebras (`requests-day`).
_NAMED: tuple[tuple[Names, Measure], ...] = (
    (_names("req-minute"), "rpm"),
    (_names("requests-minute"), "rpm"),
    (_names("requests-day"), "rpd"),
    (_names("tokens-minute"), "tpm"),
)
_MINUTE_S, _DAY_S = 60.0, 86_400.0
#: Durations are told to the millisecond, plain numbers at best to the second.
_WORDS_GRAIN_S, _NUMBER_GRAIN_S = 0.001, 1.0
#: A measured reset may be this much off what follows from limit and remaining.
_SLACK = 0.1


def _openai(headers: Mapping[str, str]) -> list[RateSeen]:
    found: list[RateSeen] = []
    pair = _pair(headers, _REQUESTS_OPEN, 1.0)
    if pair is not None:
        measure = _unit(*pair, duration_s(headers.get(_REQUESTS_OPEN[2], "")))
        if measure is not None:
            found.append(RateSeen(measure, *pair, 1.0))
    for names in _TOKENS_OPEN:
        pair = _pair(headers, names, 1.0)
        if pair is not None:
            reset = duration_s(headers.get(names[2], ""))
            # What is full again only after more than a minute is no limit of a minute.
            if reset is not None and reset[0] <= _MINUTE_S * (1 + _SLACK) + reset[1]:
                found.append(RateSeen("tpm", *pair, 1.0))
    for names, measure in _NAMED:
        pair = _pair(headers, names, 1.0)
        if pair is not None:
            found.append(RateSeen(measure, *pair, 1.0))
    return found


def _unit(limit: float, remaining: float, reset: tuple[float, float] | None) -> Measure | None:
    """Whether a limit of requests is of a minute or of a day; None when it fits neither.

    These buckets fill continuously, so the reset is the share that is missing of the minute or the
    day: 10,000 of which one is missing are full after 6ms, or after 8.64s (OpenAI); 14,400 of which
    30 are missing after 2m59.56s (Groq). A day is believed only when told to the millisecond, and
    where a minute does not fit: taken for a day's, a limit of a minute would stop all work for one.
    """
    if reset is None:
        return None
    reset_s, grain_s = reset
    missing = limit - remaining

    def fits(window_s: float) -> bool:
        # The bucket holds fractions, the header whole requests, and one was counted just now.
        least = max(1.0, missing - 1) * window_s / limit * (1 - _SLACK) - grain_s
        most = (missing + 1) * window_s / limit * (1 + _SLACK) + grain_s
        return least <= reset_s <= most

    if fits(_MINUTE_S):
        return "rpm"
    if grain_s == _WORDS_GRAIN_S:
        return "rpd" if fits(_DAY_S) else None
    # Azure counts in windows of a minute and tells the whole seconds until the next.
    return "rpm" if reset_s <= _MINUTE_S else None


_DURATION = re.compile(
    r"(?=[0-9])(?:([0-9]{1,4})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?"
    r"(?:([0-9]{1,8}(?:\.[0-9]{1,9})?)(s|ms|us|\u00b5s|ns))?"
)
_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "\u00b5s": 1e-6, "ns": 1e-9}
#: Up to 1e12: above what any provider gives, and exact in a float and in Lua.
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


def duration_s(text: str) -> tuple[float, float] | None:
    """Seconds of `120ms`, `1s`, `6m0s`, `1h2m3.5s` or `12`, and how exact they are; else None."""
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
#: A bucket of a minute is never days from full, whatever the clock of this machine says.
_FARTHEST_S = 3 * _DAY_S


def _anthropic(headers: Mapping[str, str], now_s: float) -> list[RateSeen]:
    found: list[RateSeen] = []
    # The `tokens` group tells one of the two others again, or their sum: it is read only alone.
    apart = _INPUT[0][0] in headers or _OUTPUT[0][0] in headers
    for names, measure, grain in (_REQUESTS, _INPUT, _OUTPUT) if apart else (_REQUESTS, _TOKENS):
        pair = _pair(headers, names, grain)
        if pair is not None and _recent(headers.get(names[2]), now_s):
            found.append(RateSeen(measure, *pair, grain))
    return found


def _recent(text: str | None, now_s: float) -> bool:
    """True for an RFC 3339 moment of these days; it may have passed, as real answers show."""
    if text is None or len(text) > 40:
        return False
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return False
    if at.tzinfo is None:
        return False
    try:
        return abs(at.timestamp() - now_s) <= _FARTHEST_S
    except (OverflowError, ValueError):
        return False


# ---- both


def _pair(headers: Mapping[str, str], names: Names, grain: float) -> tuple[float, float] | None:
    """Limit and remaining, or None when they are no two numbers that go together.

    Azure tells a limit of 0 or -1 for "not known". Where nothing is rounded, the request that is
    being answered is missing from what remains: who still has all of it left does not count.
    """
    told = headers.get(names[0])
    if told is None:
        return None
    limit, remaining = _amount(told), _amount(headers.get(names[1]))
    if limit is None or remaining is None or limit < 1:
        return None
    # Rounded to the thousand, 8,500 of 8,500 are told as 9,000.
    if remaining > limit + grain / 2 or (grain <= 1 and remaining >= limit):
        return None
    return limit, min(limit, remaining)


def _amount(text: str | None) -> float | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    return float(text)
