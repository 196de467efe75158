"""A worker's memory by the jobs that it has in flight, each with a prompt of 1 kB."""

from __future__ import annotations

from headgate import Client
from tests.bench.rig import rig
from tests.bench.table import Table
from tests.support.child import wait_until

LATENCY_MS = 20_000
"""Long enough for all to be in flight at once on a slow machine."""


def measure() -> Table:
    """A row for each number in flight; `base` is the same worker, warm and idle."""
    columns = ("", "base", "in flight", "per 1,000")
    table = Table("memory of one worker process, prompts of 1 kB", columns)
    for in_flight in (1_000, 2_000, 4_000):
        with rig(latency_ms=0, concurrency=in_flight) as warm:
            warm.start_worker()
            with Client(warm.settings) as client:
                client.submit("warm up").result(timeout_s=60)
            base_mb = warm.rss_mb()
        with rig(latency_ms=LATENCY_MS, concurrency=in_flight) as bench:
            bench.start_worker()
            with Client(bench.settings) as client:
                client.submit_many(f"{n} " + "x" * 1_000 for n in range(in_flight))
                simulator = bench.simulator
                all_open = lambda: simulator.stats()["open_now"] == in_flight  # noqa: B023, E731
                wait_until(all_open, 60, f"{in_flight} jobs are in flight")
                rss_mb = bench.rss_mb()
        per_1000 = (rss_mb - base_mb) / in_flight * 1000
        figures = (f"{base_mb:.0f} MB", f"{rss_mb:.0f} MB", f"{per_1000:.1f} MB")
        table.add(f"{in_flight:,} in flight", *figures)
    return table
