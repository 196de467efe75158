"""Decides whether a refusal concerns one request or its whole pool, and for how long; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from headgate.workers.errors import AttemptError, Gate, Overloaded, QuotaExhausted, RateLimited
from headgate.workers.providers.rate_headers import duration_s

#: OpenAI, rate-limit guide: growth of over 50 % in 15 minutes above a million input tokens a minute
#: (429, formerly 503). Anthropic, `anthropic.types.shared`: a cap on how fast usage can grow.
_SLOW_CODES = frozenset({"slow_down", "ramp_limit_exceeded"})
#: Anthropic before that code: "... would exceed your organization's maximum usage increase rate for
#: input tokens per minute. Please scale up ... to stay within the acceleration limit."
_SLOW_TEXT = re.compile(r"usage increase rate|acceleration limit", re.I)
#: OpenAI, error guide: the flex tier is full; the other tiers are not concerned.
_FLEX_CODE = "resource_unavailable"
#: The organisation behind one request's user profile (`anthropic.types.shared`), not the key's own.
_LINKED_CODES = frozenset(
    {"linked_organization_spend_limit_reached", "linked_organization_billing_unavailable"}
)
#: Other requests may go on. OpenAI: "Request too large for gpt-4o ... on tokens per min (TPM):
#: Limit 30000, Requested 40000"; waiting does not help. Anthropic: "Usage credits are required for
#: long context requests"; such requests also have limits of their own.
_ALONE_TEXT = re.compile(r"request too large|long context", re.I)

#: Anthropic: "You have reached your specified (workspace) API usage limits. You will regain access
#: on 2026-04-01 at 00:00 UTC." Texts that name a reset in this way are read too.
_DATE_TEXT = re.compile(
    r"(?:regain access|reset|resets|renews?)(?: on| at)? "
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:(?: at |T| )([0-9]{2}:[0-9]{2}))?",
    re.I,
)
#: Spending limits are monthly. A day that is farther off, or has passed, is ignored.
FARTHEST_S = 400 * 86_400
#: OpenAI: "Please try again in 6m0s."; Google: "Please retry in 36.5s."
_WAIT_TEXT = re.compile(r"(?:try again|retry) in ([0-9][0-9hm.]*m?s)\b", re.I)


def gate_of(
    kind: type[AttemptError],
    codes: Sequence[str],
    message: str,
    details: Mapping[str, object],
    now_s: float,
) -> Gate | None:
    """Return what the refusal says about its pool; None if it concerns this request alone.

    `codes`, `message` and `details` are the vendor's. `kind` is the error that was read from them.
    `now_s` is Unix time.
    """
    if issubclass(kind, QuotaExhausted):
        if not _LINKED_CODES.isdisjoint(codes):
            return None
        until_ms = _date_ms(message, details)
        wait_s = (until_ms or 0) / 1000 - now_s
        return Gate("money", until_ms if 0 < wait_s <= FARTHEST_S else None)
    if issubclass(kind, Overloaded):
        return Gate("flex" if _FLEX_CODE in codes else "overloaded")
    if issubclass(kind, RateLimited):
        if not _SLOW_CODES.isdisjoint(codes) or _SLOW_TEXT.search(message):
            return Gate("slow")
        return None if _ALONE_TEXT.search(message) else Gate("limited")
    return None


def wait_in_text_ms(message: str) -> int | None:
    """Return the wait that the text of a refusal names, in ms, rounded up; None if it names none.

    OpenAI's guide says that `retry-after` may be missing; Google never sends it.
    """
    found = _WAIT_TEXT.search(message)
    wait = duration_s(found[1]) if found else None
    return None if wait is None else math.ceil(wait[0] * 1000)


def _date_ms(message: str, details: Mapping[str, object]) -> int | None:
    """Return when money is there again, in Unix ms, if text or details name a moment.

    No vendor documents such a detail. A detail is read if its name contains "reset" and its value
    is a moment in RFC 3339.
    """
    for name, value in details.items():
        if "reset" in name and isinstance(value, str) and (at := _moment_ms(value)) is not None:
            return at
    found = _DATE_TEXT.search(message)
    return _moment_ms(f"{found[1]}T{found[2] or '00:00'}Z") if found else None


def _moment_ms(text: str) -> int | None:
    try:
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
