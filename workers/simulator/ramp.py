"""A limit on growth: how much faster than before a pool may take input tokens in.

OpenAI's guide: above a million input tokens a minute, no more than 50 % more every 15 minutes. The
vendors do not say how they measure. Here the rate may be `1 + growth` times the highest rate of one
to two windows ago, and always `floor_tpm`.
"""

from collections import deque
from dataclasses import dataclass, replace

from headgate.workers.simulator.limits import SimulatedBucket

SLOTS = 15  # in one window: with a window of 15 minutes, rates are measured over a minute


@dataclass(frozen=True, slots=True)
class RampRule:
    """Above `floor_tpm` input tokens a minute the rate may grow by `growth` in `window_s`."""

    floor_tpm: int
    growth: float = 0.5
    window_s: float = 900.0


class Ramps:
    """The growth of all pools, by their labels. Without a rule there is no limit."""

    def __init__(self, rule: RampRule | None, burst_s: float) -> None:
        self._rule = rule
        self._burst_s = burst_s
        self._by_label: dict[str, Ramp] = {}

    def wait_s(self, label: str, now_s: float, input_tokens: int) -> float:
        """Return the seconds until the pool may take in this much; 0 if it may now."""
        if self._rule is None:
            return 0.0
        ramp = self._by_label.get(label)
        if ramp is None:
            ramp = self._by_label[label] = Ramp(self._rule, self._burst_s, now_s)
        return ramp.wait_s(now_s, input_tokens)

    def take(self, label: str, input_tokens: int) -> None:
        """Count what the pool has taken in after `wait_s` let it through."""
        if self._rule is not None:
            self._by_label[label].take(input_tokens)


class Ramp:
    """What one pool has taken in, by slots of its windows, and what it may take in now."""

    def __init__(self, rule: RampRule, burst_s: float, now_s: float) -> None:
        self.rule = rule
        self._burst_s = burst_s
        self._slot_s = rule.window_s / SLOTS
        self._slots: deque[int] = deque([0] * (2 * SLOTS), 2 * SLOTS)  # the oldest first
        self._opened_s = now_s
        self._taken = 0
        full = self._capacity(rule.floor_tpm)
        self._bucket = SimulatedBucket(rule.floor_tpm, full, full, now_s)

    def wait_s(self, now_s: float, input_tokens: int) -> float:
        """Return the seconds until this much may be taken in; 0 if it may now."""
        self._turn(now_s)
        self._bucket.refill(now_s)
        lacking = self._bucket.missing(input_tokens)
        return 0.0 if lacking <= 1e-7 else lacking * 60 / self._bucket.per_minute

    def take(self, input_tokens: int) -> None:
        """Count what was taken in."""
        self._taken += input_tokens
        self._bucket.level -= input_tokens

    @property
    def allowed_tpm(self) -> int:
        """Input tokens a minute that may be taken in now."""
        return self._bucket.per_minute

    def _turn(self, now_s: float) -> None:
        """Close the slots that are over at `now_s`, and work out the rate that is allowed now."""
        passed = int((now_s - self._opened_s) / self._slot_s)
        if passed <= 0:
            return
        for _ in range(min(passed, 2 * SLOTS + 1)):
            self._slots.append(self._taken)
            self._taken = 0
        self._opened_s += passed * self._slot_s
        # Include the slot that is a window older than the end of the slot now opened. Otherwise
        # steady growth by exactly the rule would be refused there.
        best = max(list(self._slots)[: SLOTS + 2])
        allowed = int(best / self._slot_s * 60 * (1 + self.rule.growth))
        self._bucket.refill(now_s)
        rate = max(self.rule.floor_tpm, allowed)
        self._bucket = replace(self._bucket, per_minute=rate, capacity=self._capacity(rate))

    def _capacity(self, per_minute: float) -> float:
        return max(1.0, per_minute / 60 * self._burst_s)
