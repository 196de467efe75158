"""Whether, when and with which model a job asks again after a failed attempt. Pure.

Exponential backoff with full jitter: the n-th wait is uniform from 0 to min(max, first * 2^n)
(Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headgate.shared.catalog.schema import Model
from headgate.workers.errors import AttemptError


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How often a job asks one model, and all models, and how long it waits in between.

    `retry_after_max_ms`: the longest wait that a provider may ask for.
    """

    max_attempts: int
    max_attempts_per_job: int
    backoff_ms: float
    backoff_max_ms: float
    retry_after_max_ms: float = 3_600_000

    def of(self, model: Model) -> RetryLimits:
        """Return these limits with what the catalog says about this model."""
        return RetryLimits(
            model.max_attempts or self.max_attempts,
            self.max_attempts_per_job,
            model.backoff_s * 1000 if model.backoff_s else self.backoff_ms,
            model.backoff_max_s * 1000 if model.backoff_max_s else self.backoff_max_ms,
            self.retry_after_max_ms,
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
    """Ask no model again: no further request can help."""


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
    has_next: bool = True,
) -> Decision:
    """Return what follows a failed attempt.

    `tries_*` count the failed one. `left_ms` until the deadline. `chance` in [0, 1) draws the
    jitter. `has_next`: another model may be asked. A wait that the provider asks for is obeyed, up
    to the longest one. A wait past the deadline leaves the model.
    """
    if not error.falls_back:
        return GiveUp()
    # A job without tries left asks no model, but its chain may end in a fixed answer.
    if tries_of_job >= limits.max_attempts_per_job:
        return NextModel()
    if not error.retryable or tries_of_model >= limits.max_attempts:
        return NextModel()
    exponent = min(tries_of_model - 1, LONGEST_EXPONENT)
    wait_ms = chance * min(limits.backoff_max_ms, limits.backoff_ms * 2**exponent)
    if asked_ms := error.retry_after_ms:  # 0 ms says no more than that it may be asked again
        if has_next and asked_ms >= left_ms:
            return NextModel()
        wait_ms = min(asked_ms, limits.retry_after_max_ms) + chance * limits.backoff_ms
    return Again(int(wait_ms)) if wait_ms < left_ms else NextModel()
