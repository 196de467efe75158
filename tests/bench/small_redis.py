"""A Redis of 64 MB under many times as many bytes of results: does anything stop?"""

from __future__ import annotations

import random

from headgate import Client
from tests.bench.rig import Rig, rig, stopwatch
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, SLICE, BACKLOG, LATENCY_MS, ROOM_MB, SAMPLE = 1_000_000, 2_000, 6_000, 20, 64, 2_000


def measure() -> Table:
    """The jobs' rate, the most that Redis took, and how many results of a sample are readable."""
    table = Table(f"{JOBS:,} jobs and a Redis of {ROOM_MB} MB", ("", "figure"))
    with rig(latency_ms=LATENCY_MS) as bench, Client(bench.settings) as client:
        with bench.client() as redis:
            redis.config_set("maxmemory", f"{ROOM_MB}mb")
        bench.start_worker()
        chosen: list[str] = []
        peak, began = 0, stopwatch()
        for first in range(0, JOBS, SLICE):
            ids = client.submit_many(bench.requests(SLICE, priority="bulk"))
            chosen += random.sample(ids, max(1, SAMPLE * SLICE // JOBS))
            wait_until(lambda: bench.ended() >= first + SLICE - BACKLOG, 300, "jobs to end")  # noqa: B023
            peak = max(peak, _used_bytes(bench))
        wait_until(lambda: bench.ended() == JOBS, 300, "all jobs to end")
        table.add("jobs/s", f"{JOBS / (stopwatch() - began):,.0f}")
        table.add("the most that Redis held", f"{peak / 1e6:,.1f} MB")
        read = sum(client.result(one).status == "succeeded" for one in chosen)
        table.add("results that are readable", f"{read:,} of a sample of {len(chosen):,}")
    return table


def _used_bytes(bench: Rig) -> int:
    with bench.client() as redis:
        return int(redis.info("memory")["used_memory"])
