"""More worker processes on one machine, on both databases: 50 ms provider, 500 in flight each."""

from __future__ import annotations

from typing import get_args

from headgate import Client
from tests.bench.rig import Database, median_of, rig
from tests.bench.table import Table

JOBS, ROUNDS, LATENCY_MS = 5_000, 3, 50


def measure() -> Table:
    """A row for one, two and four processes; medians of the rounds."""
    columns = ("", "jobs/s", "CPU-ms per job", "memory of all", "Valkey / provider / producer")
    table = Table(f"worker processes, {JOBS:,} jobs (median of {ROUNDS})", columns)
    for database in get_args(Database):
        for processes in (1, 2, 4):
            with rig(latency_ms=LATENCY_MS, database=database, load_provider=True) as bench:
                for _ in range(processes):
                    bench.start_worker()
                with Client(bench.settings) as client:
                    bench.warm_up(client)
                    found = median_of([bench.drain(client, JOBS) for _ in range(ROUNDS)])
            table.add(
                f"{processes} on {database}", f"{found.rate:,.0f}", f"{found.cpu_ms:.2f}",
                f"{found.rss_mb:,.0f} MB", found.beside(),
            )  # fmt: skip
    return table
