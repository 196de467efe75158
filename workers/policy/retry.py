"""Whether, when and with which model a job asks again after an attempt failed. Pure.

Exponential backoff with full jitter: the n-th wait is drawn evenly from 0 to min(max, first * 2^n)
(Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headgate.shared.catalog.schema import Model
from headgate.workers.errors import AttemptError


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How patient a job is with one model, and in all."""

    max_attempts: int
    max_attempts_per_job: int
    backoff_ms: float
    backoff_max_ms: float

    def of(self, model: Model) -> RetryLimits:
        """The same with what the catalog says of this model."""
        return RetryLimits(
            model.max_attempts or self.max_attempts,
            self.max_attempts_per_job,
            model.backoff_s * 1000 if model.backoff_s else self.backoff_ms,
            model.backoff_max_s * 1000 if model.backoff_max_s else self.backoff_max_ms,
        )


@dataclass(frozen=True, slots=True)
class Again:
    """Ask the same model again after `wait_ms`."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class NextModel:
    """Ask the next model of the chain, if there is one."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further request can help."""


Decision: TypeAlias = Again | NextModel | GiveUp

LONGEST_EXPONENT = 30


def decide(
    error: AttemptError,
    *,
    tries_of_model: int,
    tries_of_job: int,
    limits: RetryLimits,
    left_ms: int,
    chance: float,
) -> Decision:
    """What follows a failed attempt.

    `tries_*` count the failed one. `left_ms` until the deadline. `chance` in [0, 1) is the draw of
    the jitter. The provider's own wait is obeyed however long, up to the deadline; a wait that
    would pass the deadline leaves the model.
    """
    if not error.falls_back:
        return GiveUp()
    # A job without tries left asks no model, but the end of its chain may be a fixed answer.
    if tries_of_job >= limits.max_attempts_per_job:
        return NextModel()
    if not error.retryable or tries_of_model >= limits.max_attempts:
        return NextModel()
    exponent = min(tries_of_model - 1, LONGEST_EXPONENT)
    wait_ms = chance * min(limits.backoff_max_ms, limits.backoff_ms * 2**exponent)
    if error.retry_after_ms is not None:
        wait_ms = error.retry_after_ms + chance * limits.backoff_ms
    return Again(int(wait_ms)) if wait_ms < left_ms else NextModel()
