"""Decides what follows an attempt to call a webhook. Pure.

The waits grow from 5 s to 4 h. The last attempt is made when the day of the event is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FIRST_S = 5.0
GROWTH = 4
LONGEST_S = 4 * 3600.0

JITTER = 0.25
"""A wait is longer or shorter by up to this share, so that a host that was down is not hit at once
by all events that have failed."""


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """What a webhook answered. `status`: None if no answer came; then `error` says why.

    `retry_after_ms`: how long the receiver wants us to wait.
    """

    status: int | None
    error: str = ""
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the event. `due_at_ms`: when it is tried again; `error`: what went wrong."""

    state: Literal["pending", "delivered", "failed", "disabled"]
    error: str | None = None
    due_at_ms: int | None = None


def judge(
    reply: WebhookReply, *, attempts: int, now_ms: int, until_ms: int, chance: float
) -> Verdict:
    """Return what follows from the reply to this attempt, the first of which is number 1.

    `until_ms`: when the event is given up. `chance`: a random number from 0 to 1. All times are
    Unix ms.
    """
    status = reply.status
    if status is not None and 200 <= status < 300:
        return Verdict("delivered")
    if status == 410:
        return Verdict("disabled", "its URL answered HTTP 410: it wants no events any more")
    error = reply.error or f"HTTP {status}"
    if status is not None and 300 <= status < 400:
        error = f"HTTP {status}: redirects are not followed"
    if now_ms >= until_ms:
        return Verdict("failed", error)
    wait_ms = max(wait_s(attempts, chance) * 1000, reply.retry_after_ms or 0)
    return Verdict("pending", error, min(until_ms, now_ms + round(wait_ms)))


def wait_s(attempts: int, chance: float) -> float:
    """Return the wait after so many failed attempts, in seconds."""
    wait = min(FIRST_S * float(GROWTH ** min(attempts - 1, 20)), LONGEST_S)
    return wait * (1 - JITTER + 2 * JITTER * chance)
