"""Breaker: how calls went, told to all workers; and whether a provider is good for a retry.

Failures are told at once, before anybody decides on a retry; answers are gathered for a moment. A
breaker itself is minded where holds are given: in Lua.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headgate.shared.admission.breakers import BreakerAfterReport, BreakerRules, report
from headgate.shared.admission.grant import Grant
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.policy.breaker import RetryBudget

log = logging.getLogger("headgate.breaker")

TELL_S = 0.2
"""Answers are told this often."""


class Breaker:
    """The breakers as far as this worker has to do with them; `retry_share`: see the settings."""

    def __init__(
        self, lane: RedisBatcher, keys: Keys, rules: BreakerRules, *, retry_share: float,
        clock_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._lane = lane
        self._keys = keys
        self._rules = rules
        self._retry_share = retry_share
        self._clock_ms = clock_ms
        self._heard: dict[tuple[str, str], tuple[int, int]] = {}
        self._telling: asyncio.TimerHandle | None = None
        self._purses: dict[str, RetryBudget] = {}

    def answered(self, grant: Grant, took_ms: int) -> None:
        """All will soon know that the model answered; of a probe, at once."""
        place = (_name(grant), grant.key)
        if grant.probe:
            self._start(place, 1, took_ms, grant.probe)
            return
        calls, ms = self._heard.get(place, (0, 0))
        self._heard[place] = (calls + 1, ms + took_ms)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    async def failed(self, grant: Grant) -> BreakerAfterReport:
        """All know that the model failed; how its breaker stands now."""
        model = _name(grant)
        told = await self._lane.run(
            report(self._keys, model, grant.key, self._rules, failed=1, probe=grant.probe)
        )
        if told.verdict == "opened":
            log.warning(
                "%s (%s) is down: nobody asks it for %g s, then one call tries it",
                model, grant.key, self._rules.open_s,
            )  # fmt: skip
        return told

    def called(self, provider: str) -> None:
        """A job has asked this provider for the first time."""
        purse = self._purses.get(provider, RetryBudget(at_ms=self._clock_ms()))
        self._purses[provider] = purse.after_call(self._retry_share, self._clock_ms())

    def may_retry(self, provider: str) -> bool:
        """Whether the provider is good for one more retry, which is then counted."""
        purse = self._purses.get(provider, RetryBudget(at_ms=self._clock_ms()))
        left = purse.after_retry(self._clock_ms())
        if left is not None:
            self._purses[provider] = left
        return left is not None

    def close(self) -> None:
        """Nothing is told any more; the answers of the last moment are not counted."""
        if self._telling is not None:
            self._telling.cancel()

    def _tell(self) -> None:
        self._telling = None
        heard, self._heard = self._heard, {}
        for place, (calls, ms) in heard.items():
            self._start(place, calls, ms, "")

    def _start(self, place: tuple[str, str], calls: int, took_ms: int, probe: str) -> None:
        task = asyncio.ensure_future(self._tell_of(place, calls, took_ms, probe))
        task.add_done_callback(_forget)

    async def _tell_of(self, place: tuple[str, str], calls: int, took_ms: int, probe: str) -> None:
        model, key = place
        told = await self._lane.run(
            report(
                self._keys, model, key, self._rules, answered=calls, took_ms=took_ms, probe=probe
            )
        )
        if told.verdict == "closed":
            log.warning("%s (%s) answers again: all may ask it", model, key)


def _name(grant: Grant) -> str:
    return f"{grant.pool.partition('/')[0]}/{grant.model}"


def _forget(task: asyncio.Task[None]) -> None:
    """What was not told is lost; a closing lane is no fault."""
    if not task.cancelled():
        task.exception()
