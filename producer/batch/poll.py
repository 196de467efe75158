"""Finds the jobs of a batch as they end."""

from __future__ import annotations

import time

from headgate.producer.batch.rows import BatchRows

OVERLAP_MS = 2_000
FULL_EVERY_S = 15.0
QUIET_S = 1.0
_FULL_SHARE = 1 / 20
"""Full reads may take at most this share of the time."""


class Poll:
    """Each call returns the lines of one batch that ended since the last call, each line once.

    Most calls read only the jobs that ended lately. `finished_at_ms` is the clock of a worker
    before its commit. An overlap of `OVERLAP_MS` covers late commits and small clock differences.
    Clocks that are wrong by more are covered by a full read: every `FULL_EVERY_S`, or every
    `QUIET_S` while no job ends.
    """

    def __init__(self, record: BatchRows, batch_id: str) -> None:
        self._record, self._batch_id = record, batch_id
        self._since_ms = 0
        self._found_at = self._full_at = time.monotonic()
        self._full_took_s = 0.0
        self.seen: set[int] = set()

    @property
    def quiet_s(self) -> float:
        """Seconds since a call last found a line."""
        return time.monotonic() - self._found_at

    def __call__(self) -> list[int]:
        """Return the lines that ended since the last call, in the order of their end."""
        now = time.monotonic()
        pause_s = QUIET_S if self.quiet_s > QUIET_S else FULL_EVERY_S
        full = now - self._full_at > max(pause_s, self._full_took_s / _FULL_SHARE)
        since_ms = 0 if full else max(0, self._since_ms - OVERLAP_MS)
        found = self._record.ended_lines(self._batch_id, since_ms)
        new = [line for line, _ in found if line not in self.seen]
        if new:
            self._found_at = now
            self._since_ms = max(self._since_ms, found[-1][1])
        if full:
            self._full_at, self._full_took_s = now, time.monotonic() - now
        self.seen.update(new)
        return new
