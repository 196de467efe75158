"""Breaker: how calls went, reported to all workers; and whether a provider may be retried.

Failures are reported at once, before a retry is decided. Answers are gathered for a moment, at most
until a failure comes: it counts after them. The breaker itself lives in Lua, where holds are
granted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator

from headgate.shared.admission.breakers import BreakerAfterReport, BreakerRules, report
from headgate.shared.admission.grant import Held
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.delayed_report import DelayedReport, Report
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.errors import AttemptError
from headgate.workers.policy.breaker import fault_text
from headgate.workers.policy.retry_budget import RetryBudget, RetryRules

log = logging.getLogger("headgate.breaker")

REPORT_S = 0.2
"""Answers are reported this often."""


class Breaker:
    """This worker's view of the breakers, and its retry budgets."""

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, rules: BreakerRules, *, retries: RetryRules,
        clock_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._batcher = batcher
        self._keys = keys
        self._rules = rules
        self._retries = retries
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

    def failed(self, hold: Held, error: AttemptError) -> Awaitable[BreakerAfterReport]:
        """Report that the model failed; return the state of its breaker after that.

        The failure counts after what was answered before this call, so call it without a wait
        after the failure: else one round of the event loop, in which many calls end, looks like a
        row of failures.
        """
        place = (_name(hold), hold.key)
        # A probe speaks for itself.
        calls, ms = (0, 0) if hold.probe else self._answers.pop(place, (0, 0))
        return self._failed(hold, calls, ms, fault_text(error))

    async def _failed(self, hold: Held, calls: int, ms: int, fault: str) -> BreakerAfterReport:
        model = _name(hold)
        after = await self._batcher.run(
            report(
                self._keys, model, hold.key, self._rules, answered=calls, took_ms=ms, failed=1,
                probe=hold.probe, fault=fault,
            )
        )  # fmt: skip
        if after.verdict == "opened":
            log.warning(
                "%s (%s) is down: no call goes to it for %g s, then one call probes it; "
                "the last fault: %s",
                model, hold.key, self._rules.open_s, fault,
            )  # fmt: skip
        return after

    def called(self, provider: str) -> None:
        """Add to the provider's retry budget: a job asks it for the first time."""
        budget = self._budget(provider)
        self._budgets[provider] = budget.after_call(self._retries, self._clock_ms())

    def book_retry(self, provider: str, longest_ms: int) -> int | None:
        """Take one retry from the provider's budget; return the ms until it may go.

        None if the budget has none within `longest_ms`.
        """
        budget, now_ms = self._budget(provider), self._clock_ms()
        booked = budget.after_retry(self._retries, now_ms, longest_ms)
        if booked is None:
            return None
        self._budgets[provider], wait_ms = booked
        return wait_ms

    def _budget(self, provider: str) -> RetryBudget:
        found = self._budgets.get(provider)
        return found or RetryBudget(self._retries.burst, at_ms=self._clock_ms())

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
