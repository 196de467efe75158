"""What counts as a model's fault, and how many retries a provider is still good for. Pure.

A budget of retries in place of a count for each job: where most calls fail, each job's own retries
would multiply the load of a provider that is down already (Google, "Site Reliability Engineering",
chapter 22; Finagle's RetryBudget).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from headgate.workers.errors import AttemptError

#: Codes that speak of the model, its provider or the key. Of a request's own faults none counts,
#: nor what limits, quotas and callers end.
FAULTS = frozenset(
    {"timeout", "connection", "provider_error", "overloaded", "invalid_output", "authentication",
     "permission"}
)  # fmt: skip

QUIET_BURST, QUIET_PER_S = 10.0, 1.0
"""Retries that are free, so that a system with little traffic retries as ever."""

EARNED_S = 10.0
"""What traffic has earned fades by 1/e in this time: an hour of calls must not pay one burst."""

LOOK_MS, LEAST_MS = 30_000, 1000
"""How often, at most and at least, a job of which several models are down looks for one."""

UNKNOWN_MS = 2**40
"""Nobody has said when a probe may go."""


def patience(broken: Mapping[str, int], left_ms: int, chance: float) -> tuple[str, int]:
    """Which of the models that are down a job waits for, and when it looks again; 0: in line.

    `broken`: the ms until one probe may go. Several: not all jobs look in one moment (`chance` in
    [0, 1)), and none far past the first that may be up, whichever that is.
    """
    name = min(broken, key=lambda model: broken[model])
    if len(broken) == 1:
        return name, 0
    wait_ms = min(LOOK_MS, broken[name]) * (1 + chance / 4)
    return name, int(max(LEAST_MS, min(wait_ms, left_ms)))


def is_fault(error: AttemptError, *, cut_short: bool = False) -> bool:
    """Whether the failure counts against the model; `cut_short`: by the job's own deadline."""
    return error.code in FAULTS and not (cut_short and error.code == "timeout")


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Retries that may be spent at one provider: `quiet` come by time, `earned` by traffic."""

    quiet: float = QUIET_BURST
    earned: float = 0.0
    at_ms: int = 0

    def after_call(self, share: float, now_ms: int) -> RetryBudget:
        """A first call has earned its share of a retry."""
        then = self._at(now_ms)
        return replace(then, earned=then.earned + share)

    def after_retry(self, now_ms: int) -> RetryBudget | None:
        """A retry is paid; None: there is nothing to pay it with."""
        then = self._at(now_ms)
        if then.earned >= 1:
            return replace(then, earned=then.earned - 1)
        return replace(then, quiet=then.quiet - 1) if then.quiet >= 1 else None

    def _at(self, now_ms: int) -> RetryBudget:
        since_s = max(0, now_ms - self.at_ms) / 1000
        quiet = min(QUIET_BURST, self.quiet + since_s * QUIET_PER_S)
        return RetryBudget(quiet, self.earned * math.exp(-since_s / EARNED_S), now_ms)
