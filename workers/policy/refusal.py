"""What a refusal says about a provider's limits: which gate shuts, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.shared.admission.ticket import Ticket
from headgate.workers.errors import AttemptError, RateLimited


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal as `limits_observe.lua` reads it.

    `wait_ms`: -1 where the refusal does not say how long. Of an account that is out of money it is
    the Unix ms of the reset.
    """

    kind: str
    wait_ms: int


def refusal(error: AttemptError) -> Refusal | None:
    """Return what all workers should know of the refusal; None if it is not about limits."""
    if error.gate is None:
        return None
    wait_ms = error.gate.until_ms if error.gate.kind == "money" else error.retry_after_ms
    return Refusal(error.gate.kind, -1 if wait_ms is None else wait_ms)


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
