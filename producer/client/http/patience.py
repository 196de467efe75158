"""How long those who wait for a job put up with a gateway that does not answer."""

from __future__ import annotations

import time

from headgate.producer.callers.refused import KeyRefused
from headgate.shared.errors import Unfit, Unreachable

GIVE_UP_AFTER_S = 60.0
"""After how long without the gateway the fault is raised to those who wait."""

LONGEST_S = 4.0


class Patience:
    """The pauses between tries: the first one is `first_s`, and they double up to LONGEST_S."""

    def __init__(self, first_s: float) -> None:
        self._first_s = self._next_s = first_s
        self._failing_since: float | None = None

    def reset(self) -> None:
        """Note that the gateway answers."""
        self._next_s, self._failing_since = self._first_s, None

    def pause_s(self, fault: Exception) -> float | None:
        """Return how long to wait after this fault; None if another try does not help."""
        now = time.monotonic()
        since = self._failing_since = now if self._failing_since is None else self._failing_since
        if not _may_pass(fault) or now - since >= GIVE_UP_AFTER_S:
            return None
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, LONGEST_S)
        if isinstance(fault, KeyRefused):
            pause_s = max(pause_s, fault.retry_after_s)
        return pause_s if pause_s <= GIVE_UP_AFTER_S else None


def _may_pass(fault: Exception) -> bool:
    """Return whether the same call may succeed later."""
    if isinstance(fault, KeyRefused):
        return fault.http_status == 429
    return isinstance(fault, Unreachable) and not isinstance(fault, Unfit)
