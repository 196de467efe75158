"""What is known of a provider's bucket: how deep it is, and whether it fills in fixed windows.

The same figures as those of `shared/broker/lua/lib/depth.lua`; a test compares the two. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headgate.shared.broker import figures


@dataclass(frozen=True, slots=True)
class Depth:
    """What headers and refusals have told of one measure.

    `limit`: a minute's; `fields`: those of the measure in the hash of the bucket, without its name.
    """

    limit: float
    fields: Mapping[str, float]
    now_ms: float

    @property
    def top(self) -> float:
        """The largest amount that was left lately."""
        return max(self.fields.get("top", 0.0), self.fields.get("before", 0.0))

    @property
    def is_fixed(self) -> bool:
        """Whether the provider counts in fixed windows, for all that is known."""
        return self.fields.get("fixed", 0.0) >= figures.SURE and "window_at" in self.fields

    @property
    def window_ms(self) -> float:
        """How long a window lasts."""
        needs = min(60_000.0, max(1.0, self.top) / self.limit * 60_000)
        for usual in figures.USUAL_WINDOWS_MS:
            if 0.75 * usual < needs <= 1.02 * usual:
                return float(usual)
        return needs

    def window_of(self, at_ms: float) -> int:
        """Return the number of the window in which a moment lies."""
        return math.floor((at_ms - self._first_ms) / self.window_ms)

    @property
    def window_ends_ms(self) -> float:
        """The moment at which the next window begins."""
        return self._first_ms + (self.window_of(self.now_ms) + 1) * self.window_ms

    @property
    def _first_ms(self) -> float:
        return self.fields["window_at"] + figures.WINDOW_GUARD_MS

    @property
    def full(self) -> float | None:
        """What the bucket holds when it is full; None if nothing was told lately."""
        if "told_at" not in self.fields:
            return None
        if self.is_fixed:
            full = self.window_ms / 60_000 * self.limit
        else:
            full = max(self.top, min(self.fields.get("sum", 0.0), self.limit))
        full = min(full, self.limit)
        age_ms = self.now_ms - self.fields["told_at"]
        if full < 1 or age_ms > figures.TOLD_MS + full / self.limit * 60_000:
            return None
        return full

    def capacity(self, a_minute: float, burst_s: float, *, fixed: bool) -> float:
        """Return what our bucket holds at most, of `a_minute` that is allowed.

        `burst_s`: the operator's; 0 for none. `fixed`: it is whole again after each window.
        """
        second = a_minute / 60
        least = second * (burst_s or 1) * figures.BURST
        full = self.full
        if full is None or a_minute < self.limit:
            return least
        own = max(min(full, self.limit / 60), full - self.fields.get("floor", 0.0))
        if fixed:
            return own * self.share(fixed=True)
        own -= min(second, own) * figures.BURST
        return min(least, own) if burst_s else own

    def share(self, *, fixed: bool) -> float:
        """Return the share of the rate, or of a window, that is used."""
        most = 1.0 if fixed else figures.RATE
        if "share" not in self.fields:
            return most
        since_ms = max(0.0, self.now_ms - self.fields.get("share_at", self.now_ms))
        return min(most, self.fields["share"] + since_ms / figures.SHARE_MS)
