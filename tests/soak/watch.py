"""What is looked at while a soak runs: jobs ended, memory, file handles, the broker's keys."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil
from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import audit
from headgate.shared.job.ids import now_ms
from tests.support.child import ChildProcess

if TYPE_CHECKING:
    from tests.soak.stage import Stage

EVERY_S = 1.0
BEHIND_MS = 5_000
"""Ends are counted this long after they were: a commit may take a while to be seen."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. None: the server was away just then. `fds` leaves out lines to the provider."""

    at_s: float
    ended: int
    rss_mb: float
    fds: int
    threads: int
    canary_mb: float
    present: int | None
    valkey_mb: float | None
    valkey_clients: int | None


@dataclass(slots=True)
class Watch:
    """All looks so far. `longest_s`: the longest time in which no job ended."""

    samples: list[Sample] = field(default_factory=list)
    ended: int = 0
    longest_s: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _looked: float = 0.0
    _counted_to_ms: int = 0
    _moved: float = field(default_factory=time.monotonic)

    def look(self, stage: Stage) -> None:
        """One sample more, if the last one is old enough."""
        now = time.monotonic()
        if now - self._looked < EVERY_S:
            return
        self._looked = now
        self._count(stage)
        steady = psutil.Process(stage.steady.pid)
        present = valkey_mb = clients = None
        with contextlib.suppress(RedisError, OSError):
            if _answers(stage.valkey):
                with stage.redis() as client:
                    present = int(client.scard(stage.keys.present()))
                    facts = client.info()
                    valkey_mb = facts["used_memory"] / 1e6
                    clients = facts["connected_clients"]
        provider = int(stage.simulator.url.rpartition(":")[2])
        lines = [c for c in steady.net_connections("tcp") if c.raddr and c.raddr.port == provider]
        self.samples.append(
            Sample(
                now - self._began, self.ended, steady.memory_info().rss / 1e6,
                steady.num_fds() - len(lines), steady.num_threads(),
                psutil.Process(stage.canary.pid).memory_info().rss / 1e6,
                present, valkey_mb, clients,
            )
        )  # fmt: skip

    def _count(self, stage: Stage) -> None:
        if stage.postgres is not None and not _answers(stage.postgres):
            return
        to_ms = now_ms() - BEHIND_MS
        span = audit.c.finished_at_ms.between(self._counted_to_ms, to_ms - 1)
        try:
            with reading(stage.engine) as connection:
                more = connection.scalar(select(func.count()).where(span)) or 0
        except DBAPIError:
            return
        self._counted_to_ms = to_ms
        now = time.monotonic()
        if more:
            self._moved = now
        self.longest_s = max(self.longest_s, now - self._moved)
        self.ended += more

    def line(self, since_s: float, words: str) -> str:
        """One line of the timeline: the time after `since_s`, and what was done in it."""
        span = [sample for sample in self.samples if sample.at_s >= since_s]
        if len(span) < 2:
            return words
        first, last = span[0], span[-1]
        rate = (last.ended - first.ended) / (last.at_s - first.at_s)
        memory = next((s.valkey_mb for s in reversed(span) if s.valkey_mb is not None), 0.0)
        known = next((s.present for s in reversed(span) if s.present is not None), 0)
        return (
            f"{last.at_s:6.0f} s {rate:6.0f} jobs/s {known:6} known  worker {last.rss_mb:4.0f} MB"
            f" {last.fds:3} fds {last.threads:2} threads  canary {last.canary_mb:4.0f} MB"
            f"  valkey {memory:4.0f} MB  {words}"
        )

    def growth(self, measure: str, warm_s: float) -> tuple[float, float]:
        """Median of a measure in the first quarter after `warm_s`, and in the last quarter."""
        values = [
            float(value)
            for sample in self.samples
            if sample.at_s >= warm_s and (value := getattr(sample, measure)) is not None
        ]
        quarter = max(1, len(values) // 4)
        return statistics.median(values[:quarter]), statistics.median(values[-quarter:])


def _answers(server: ChildProcess) -> bool:
    """False while it is dead or frozen: a look would wait for it."""
    return server.running and psutil.Process(server.pid).status() != psutil.STATUS_STOPPED
