"""Finds the jobs of a batch as they end."""

from __future__ import annotations

import time

from headgate.producer.batch.rows import BatchRows

OVERLAP_MS = 2_000
FULL_EVERY_S = 15.0
QUIET_S = 1.0
_DEAREST = 1 / 20  # of the time may go into full looks


class Poll:
    """Each call gives the lines of one batch that ended since the last one, each line once.

    The usual look reads only what ended lately. `finished_at_ms` is a worker's clock before its
    commit: the overlap covers late commits and small differences, and a full look, now and then
    and whenever nothing comes, covers clocks that are wrong by more.
    """

    def __init__(self, record: BatchRows, batch_id: str) -> None:
        self._record, self._batch_id = record, batch_id
        self._since_ms = 0
        self._news_at = self._full_at = time.monotonic()
        self._full_took_s = 0.0
        self.seen: set[int] = set()

    @property
    def quiet_s(self) -> float:
        """For how long nothing has ended."""
        return time.monotonic() - self._news_at

    def __call__(self) -> list[int]:
        """The lines that ended since the last call, in the order in which they ended."""
        now = time.monotonic()
        pause_s = QUIET_S if self.quiet_s > QUIET_S else FULL_EVERY_S
        full = now - self._full_at > max(pause_s, self._full_took_s / _DEAREST)
        since_ms = 0 if full else max(0, self._since_ms - OVERLAP_MS)
        found = self._record.ended_lines(self._batch_id, since_ms)
        news = [line for line, _ in found if line not in self.seen]
        if news:
            self._news_at = now
            self._since_ms = max(self._since_ms, found[-1][1])
        if full:
            self._full_at, self._full_took_s = now, time.monotonic() - now
        self.seen.update(news)
        return news
