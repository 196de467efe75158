"""Breaker: how calls went, reported to all workers; and whether a provider may be retried.

Failures are reported at once, before a retry is decided. Answers are gathered for a moment. The
breaker itself lives in Lua, where holds are granted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from headgate.shared.admission.breakers import BreakerAfterReport, BreakerRules, report
from headgate.shared.admission.grant import Held
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.delayed_report import DelayedReport, Report
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.errors import AttemptError
from headgate.workers.policy.breaker import RetryBudget, fault_text

log = logging.getLogger("headgate.breaker")

REPORT_S = 0.2
"""Answers are reported this often."""


class Breaker:
    """This worker's view of the breakers, and its retry budgets (`retry_share`: see settings)."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, rules: BreakerRules, *, retry_share: float,
        clock_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._batcher = batcher
        self._keys = keys
        self._rules = rules
        self._retry_share = retry_share
        self._clock_ms = clock_ms
        self._answers: dict[tuple[str, str], tuple[int, int]] = {}
        self._report = DelayedReport(REPORT_S, self._reports)
        self._budgets: dict[str, RetryBudget] = {}

    def answered(self, hold: Held, took_ms: int) -> None:
        """Report soon that the model answered; the answer of a probe is reported at once."""
        place = (_name(hold), hold.key)
        if hold.probe:
            self._report.send(self._answered(place, 1, took_ms, hold.probe))
            return
        calls, ms = self._answers.get(place, (0, 0))
        self._answers[place] = (calls + 1, ms + took_ms)
        self._report.schedule()

    async def failed(self, hold: Held, error: AttemptError) -> BreakerAfterReport:
        """Report that the model failed; return the state of its breaker after that."""
        model, fault = _name(hold), fault_text(error)
        after = await self._batcher.run(
            report(
                self._keys, model, hold.key, self._rules, failed=1, probe=hold.probe, fault=fault
            )
        )
        if after.verdict == "opened":
            log.warning(
                "%s (%s) is down: no call goes to it for %g s, then one call probes it; "
                "the last fault: %s",
                model, hold.key, self._rules.open_s, fault,
            )  # fmt: skip
        return after

    def called(self, provider: str) -> None:
        """Add to the provider's retry budget: a job asks it for the first time."""
        budget = self._budgets.get(provider, RetryBudget(at_ms=self._clock_ms()))
        self._budgets[provider] = budget.after_call(self._retry_share, self._clock_ms())

    def may_retry(self, provider: str) -> bool:
        """Take one retry from the provider's budget; return False if none is left."""
        budget = self._budgets.get(provider, RetryBudget(at_ms=self._clock_ms()))
        left = budget.after_retry(self._clock_ms())
        if left is not None:
            self._budgets[provider] = left
        return left is not None

    def close(self) -> None:
        """Report nothing more; the answers of the last moment are not counted."""
        self._report.close()

    def _reports(self) -> Iterator[Report]:
        answers, self._answers = self._answers, {}
        for place, (calls, ms) in answers.items():
            yield self._answered(place, calls, ms, "")

    async def _answered(self, place: tuple[str, str], calls: int, took_ms: int, probe: str) -> None:
        model, key = place
        after = await self._batcher.run(
            report(
                self._keys, model, key, self._rules, answered=calls, took_ms=took_ms, probe=probe
            )
        )
        if after.verdict == "closed":
            log.warning("%s (%s) answers again: all jobs may use it", model, key)


def _name(hold: Held) -> str:
    return f"{hold.pool.partition('/')[0]}/{hold.model}"
