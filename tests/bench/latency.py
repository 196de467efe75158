"""A provider that takes one second, 2,000 in flight: 2,000 jobs/s is all that there could be."""

from __future__ import annotations

import json

from headgate import Client
from tests.bench.rig import Figures, median_of, rig, run_child
from tests.bench.table import Table

JOBS, IN_FLIGHT, LATENCY_MS, ROUNDS = 10_000, 2_000, 1_000, 3


def measure() -> Table:
    """One row of ours, one of a bare loop."""
    title = f"{LATENCY_MS / 1000:g} s provider, {IN_FLIGHT:,} in flight, {JOBS:,} jobs"
    table = Table(f"{title} (median of {ROUNDS})", ("", "jobs/s", "CPU-ms per job", "memory"))
    with rig(latency_ms=LATENCY_MS, concurrency=IN_FLIGHT, load_provider=True) as bench:
        bench.start_worker()
        with Client(bench.settings) as client:
            bench.warm_up(client)
            ours = median_of([bench.drain(client, JOBS) for _ in range(ROUNDS)])
        bench.stop_workers()
        words = ("aiohttp", bench.provider_url, str(JOBS), str(IN_FLIGHT))
        bare = [
            Figures(**json.loads(run_child(bench, "tests.bench.floor", *words)))
            for _ in range(ROUNDS)
        ]
    for name, found in (
        ("Headgate, one worker process", ours),
        ("a bare AsyncOpenAI loop on aiohttp", median_of(bare)),
    ):
        table.add(name, f"{found.rate:,.0f}", f"{found.cpu_ms:.2f}", f"{found.rss_mb:,.0f} MB")
    return table
