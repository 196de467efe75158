"""What a refusal says about a provider's limits: which gate shuts, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.shared.admission.ticket import Ticket
from headgate.workers.errors import AttemptError, RateLimited
from headgate.workers.policy import retry_after


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal as `limits_observe.lua` reads it.

    `wait_ms`: -1 where the refusal does not say how long. Of an account that is out of money it is
    the Unix ms of the reset. `asked_ms`: what the provider asked for, where that is more than we
    wait: then one request tests the pool after `wait_ms`. Else -1.
    """

    kind: str
    wait_ms: int
    asked_ms: int = -1


def refusal(error: AttemptError, most_ms: float) -> Refusal | None:
    """Return what all workers should know of the refusal; None if it is not about limits.

    `most_ms`: the longest wait that a provider may ask for.
    """
    if error.gate is None:
        return None
    if error.gate.kind == "money":
        until_ms = error.gate.until_ms
        return Refusal("money", -1 if until_ms is None else until_ms)
    asked_ms = error.retry_after_ms
    if asked_ms is None:
        return Refusal(error.gate.kind, -1)
    if asked_ms <= most_ms:
        return Refusal(error.gate.kind, asked_ms)
    return Refusal(error.gate.kind, int(most_ms), asked_ms)


def shuts(error: AttemptError) -> bool:
    """Return whether the refusal shuts the gate of its pool for the time that it names.

    Jobs then wait at the gate, where an operator's word reaches them.
    """
    is_gated = error.gate is not None and error.gate.kind in ("limited", "slow", "flex")
    return is_gated and bool(error.retry_after_ms)


def odd_wait(error: AttemptError, most_ms: float) -> str:
    """Return what an operator should know of the wait that came; empty for a usual one."""
    if not error.retryable:
        return ""
    if error.retry_after_ms is None or error.retry_after_ms <= most_ms:
        return error.retry_after_note
    asked = retry_after.said(error.headers) or "the text of a refusal"
    then = "; then one call tests the pool" if shuts(error) else ""
    return (
        f"{asked} asks for a wait of {error.retry_after_ms / 1000:.0f} s; the wait is cut to "
        f"{most_ms / 1000:g} s (HEADGATE_RETRY_AFTER_MAX_S){then}"
    )


class TooLargeForLimit(RateLimited):
    """The request takes more than its limit lets through in a minute."""

    retryable = False
    waiting_helps = False


def too_large(ticket: Ticket) -> AttemptError:
    """Return the error of a request that one of its limits can never let through."""
    tokens = ticket.input_tokens + (ticket.output_tokens if ticket.rule == "o" else 0)
    return TooLargeForLimit(
        f"about {tokens} tokens are more than a limit of {ticket.pool} or of its caller lets "
        "through in a minute; shorten the request, lower max_tokens, or raise the limit"
    )
