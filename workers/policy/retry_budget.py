"""How many retries are left for a provider, and when the next one may go. Pure.

A budget for all retries, not a count for each job: where most calls fail, each job's own retries
would multiply the load of a provider that is already down (Google, "Site Reliability Engineering",
chapter 22). The defaults are those of Finagle's RetryBudget: a fifth of the calls, and ten retries
a second in any case. Envoy allows a fifth, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

EARNED_S = 10.0
"""Time constant with which earned retries decay: an hour of calls must not pay for one burst."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How many retries one worker makes at one provider.

    `share`: of its first calls. `per_s`: retries a second that come by time alone, so that a
    system with little traffic retries as usual.
    """

    share: float = 0.2
    per_s: float = 10.0

    @property
    def burst(self) -> float:
        """The most retries that gather by time: a second's worth, and at least one."""
        return max(1.0, self.per_s) if self.per_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Retries left for one provider: `quiet` ones come by time, `earned` ones by traffic.

    `quiet` is below 0 where retries have been booked that may go later.
    """

    quiet: float
    earned: float = 0.0
    at_ms: int = 0

    def after_call(self, rules: RetryRules, now_ms: int) -> RetryBudget:
        """Return the budget after a first call, which earns its share of a retry."""
        then = self._at(rules, now_ms)
        return RetryBudget(then.quiet, then.earned + rules.share, now_ms)  # of each job: quickly

    def after_retry(
        self, rules: RetryRules, now_ms: int, longest_ms: int
    ) -> tuple[RetryBudget, int] | None:
        """Book one retry; return the budget after it, and the ms until the retry may go.

        None if that would be more than `longest_ms`: then nothing is booked.
        """
        then = self._at(rules, now_ms)
        if then.earned >= 1:
            return replace(then, earned=then.earned - 1), 0
        left = then.quiet - 1
        if left >= 0:
            return replace(then, quiet=left), 0
        if rules.per_s <= 0:
            return None
        wait_ms = math.ceil(-left / rules.per_s * 1000)
        return (replace(then, quiet=left), wait_ms) if wait_ms <= longest_ms else None

    def _at(self, rules: RetryRules, now_ms: int) -> RetryBudget:
        since_s = max(0, now_ms - self.at_ms) / 1000
        quiet = min(rules.burst, self.quiet + since_s * rules.per_s)
        return RetryBudget(quiet, self.earned * math.exp(-since_s / EARNED_S), now_ms)
