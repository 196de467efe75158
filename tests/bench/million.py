"""A million queued jobs: what they cost, and whether anybody notices that they are there."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from headgate import Client
from tests.bench.rig import Rig, rig, stopwatch
from tests.bench.table import Table

JOBS, SLICE, LATENCY_MS = 1_000_000, 10_000, 50
SPAN_S, URGENT = 15.0, 20


def measure() -> Table:
    """Rate and cost of submission; a worker with few jobs before it, and with all of them."""
    table = Table(f"{JOBS:,} queued jobs, SQLite", ("", "figure"))
    with rig(latency_ms=LATENCY_MS) as bench, Client(bench.settings) as client:
        bench.start_worker()
        bench.warm_up(client)
        client.submit_many(bench.requests(40_000, priority="bulk"))
        few = _at_work(bench, client)
        bench.stop_workers()
        memory, size, began = _valkey_bytes(bench), _record_bytes(bench), stopwatch()
        for _ in range(JOBS // SLICE):
            client.submit_many(bench.requests(SLICE, priority="bulk"))
        took = stopwatch() - began
        table.add("submit_many", f"{JOBS / took:,.0f} jobs/s")
        table.add("Valkey's memory", f"{(_valkey_bytes(bench) - memory) / JOBS:,.0f} bytes per job")
        table.add("the record", f"{(_record_bytes(bench) - size) / JOBS:,.0f} bytes per job")
        began = stopwatch()
        bench.start_worker()
        table.add("a worker's start", f"{stopwatch() - began:.1f} s")
        bench.warm_up(client)  # its jobs are standard ones, and go before the bulk
        many = _at_work(bench, client)
    for name, (rate, cpu_ms, wait_ms) in (("few queued", few), ("a million queued", many)):
        table.add(f"{name}: a worker", f"{rate:,.0f} jobs/s, {cpu_ms:.2f} CPU-ms per job")
        table.add(f"{name}: an urgent job's result after", f"{wait_ms:,.0f} ms (median)")
    return table


def _at_work(bench: Rig, client: Client) -> tuple[float, float, float]:
    """Jobs/s and CPU-ms per job over a while, then the median wait for an urgent job's result."""
    before, cpu, began = bench.ended(), bench.cpu_s(), stopwatch()
    time.sleep(SPAN_S)
    jobs, took = bench.ended() - before, stopwatch() - began
    cpu_ms = (bench.cpu_s() - cpu) / max(1, jobs) * 1000
    waits = []
    for request in bench.requests(URGENT, priority="interactive"):
        began = stopwatch()
        client.submit(**request).result(timeout_s=60)
        waits.append((stopwatch() - began) * 1000)
    return jobs / took, cpu_ms, statistics.median(waits)


def _valkey_bytes(bench: Rig) -> int:
    with bench.client() as client:
        return int(client.info("memory")["used_memory"])


def _record_bytes(bench: Rig) -> int:
    file = Path(bench.database_url.removeprefix("sqlite:///"))
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))
