"""A limit on growth: how much faster than before a pool may take input tokens in.

OpenAI's guide: above a million input tokens a minute, no more than 50 % more every 15 minutes. How
the vendors measure is not told. Here the rate may be `1 + growth` times the highest that stood one
to two windows ago, and always `floor_tpm`.
"""

from collections import deque
from dataclasses import dataclass, replace

from headgate.workers.simulator.limits import SimulatedBucket

SLOTS = 15  # in one window: rates are measured over a minute where the window is 15


@dataclass(frozen=True, slots=True)
class RampRule:
    """Growth above `floor_tpm` input tokens a minute is held to `growth` in `window_s`."""

    floor_tpm: int
    growth: float = 0.5
    window_s: float = 900.0


class Ramps:
    """The growth of all pools, by their labels; without a rule nothing is held back."""

    def __init__(self, rule: RampRule | None, burst_s: float) -> None:
        self._rule = rule
        self._burst_s = burst_s
        self._by_label: dict[str, Ramp] = {}

    def wait_s(self, label: str, now_s: float, input_tokens: int) -> float:
        """Seconds until the pool may take so much in; 0 when it may now."""
        if self._rule is None:
            return 0.0
        ramp = self._by_label.get(label)
        if ramp is None:
            ramp = self._by_label[label] = Ramp(self._rule, self._burst_s, now_s)
        return ramp.wait_s(now_s, input_tokens)

    def take(self, label: str, input_tokens: int) -> None:
        """True afterwards: the pool took so much in, which `wait_s` had let through."""
        if self._rule is not None:
            self._by_label[label].take(input_tokens)


class Ramp:
    """What one pool has taken in, by slots of a window, and what it may take in now."""

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
        """Seconds until so much may be taken in; 0 when it may now."""
        self._turn(now_s)
        self._bucket.refill(now_s)
        lacking = self._bucket.missing(input_tokens)
        return 0.0 if lacking <= 1e-7 else lacking * 60 / self._bucket.per_minute

    def take(self, input_tokens: int) -> None:
        """True afterwards: so much more was taken in."""
        self._taken += input_tokens
        self._bucket.level -= input_tokens

    @property
    def allowed_tpm(self) -> int:
        """Input tokens a minute that may be taken in now."""
        return self._bucket.per_minute

    def _turn(self, now_s: float) -> None:
        """True afterwards: the slot that is open is the one of `now_s`."""
        passed = int((now_s - self._opened_s) / self._slot_s)
        if passed <= 0:
            return
        for _ in range(min(passed, 2 * SLOTS + 1)):
            self._slots.append(self._taken)
            self._taken = 0
        self._opened_s += passed * self._slot_s
        # Up to the slot that the one now opened will be a window older than at its end: or steady
        # growth by exactly the rule would be refused there.
        best = max(list(self._slots)[: SLOTS + 2])
        allowed = int(best / self._slot_s * 60 * (1 + self.rule.growth))
        self._bucket.refill(now_s)
        rate = max(self.rule.floor_tpm, allowed)
        self._bucket = replace(self._bucket, per_minute=rate, capacity=self._capacity(rate))

    def _capacity(self, per_minute: float) -> float:
        return max(1.0, per_minute / 60 * self._burst_s)
