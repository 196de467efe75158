"""Counts what one pool let through and refused, to work out how much of a limit was used."""

from collections import Counter, deque
from typing import Any

from headgate.workers.simulator.limits import SimulatedCharge

WINDOW_S = 1.0


class PoolThroughput:
    """The counts of one pool since the start or the last reset."""

    def __init__(self) -> None:
        self.accepted = 0
        self.charged: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.first_s = self.last_s = 0.0
        self._recent: deque[tuple[float, tuple[SimulatedCharge, ...]]] = deque()
        self._within: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    def accept(self, now_s: float, epoch_s: float, charges: tuple[SimulatedCharge, ...]) -> None:
        """Count a request that was let through at `now_s` of a steady clock."""
        if not self.accepted:
            self.first_s = epoch_s
        self.last_s = epoch_s
        self.accepted += 1
        recent, within, most = self._recent, self._within, self._most
        # Drop old requests before the new one is added: a window is half open, so that a rate of
        # 100/s gives 100 in any window.
        while recent and recent[0][0] <= now_s - WINDOW_S:
            for old in recent.popleft()[1]:
                within[old.kind] -= old.amount
        recent.append((now_s, charges))
        for one in charges:
            self.charged[one.kind] += one.amount
            within[one.kind] += one.amount
            if within[one.kind] > most[one.kind]:
                most[one.kind] = within[one.kind]

    def report(self) -> dict[str, Any]:
        """Return the figures as JSON values. Times are Unix seconds, None before the first."""
        return {
            "accepted": self.accepted,
            "charged": dict(self.charged),
            "most_in_1s": dict(self._most),
            "refused": self.refusals.total(),
            "refusals": dict(self.refusals),
            "faults": dict(self.faults),
            "first_accepted_s": self.first_s or None,
            "last_accepted_s": self.last_s or None,
        }
