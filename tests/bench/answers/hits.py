"""What a cached answer costs, what looking in vain adds, and what equal requests at once cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from headgate import AsyncClient, Client
from tests.bench.rig import Figures, Rig, median_of, rig, stopwatch
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, ROUNDS, LATENCY_MS = 5_000, 3, 50
PACED, PER_S = 200, 20
SAME, WORKERS, CALL_MS = 1_000, 4, 1_000
OFF: dict[str, Any] = {"cache": {"mode": "off"}, "share": False}


def hits() -> Table:
    """Rows without a cache, of misses and of hits; medians of the rounds."""
    columns = ("", "jobs/s", "CPU-ms per job", "to the result when idle, p50 / p99", "calls")
    table = Table(f"{LATENCY_MS} ms provider, {JOBS:,} jobs (median of {ROUNDS})", columns)
    with rig(latency_ms=LATENCY_MS) as bench, Client(bench.settings) as client:
        bench.start_worker()
        bench.warm_up(client)
        known = bench.requests(JOBS)
        _drain(bench, client, known)
        # None of the misses is asked for twice; the hits are all alike to the last.
        kinds = {"no cache, no sharing": OFF, "misses": {}, "hits": None}
        for name, fields in kinds.items():
            before = bench.simulator.stats()["answered"]
            rounds = [
                _drain(bench, client, known if fields is None else bench.requests(JOBS, **fields))
                for _ in range(ROUNDS)
            ]
            calls = bench.simulator.stats()["answered"] - before
            paced = known[:PACED] if fields is None else bench.requests(PACED, **fields)
            took = asyncio.run(_paced(bench, paced))
            found = median_of(rounds)
            table.add(
                name, f"{found.rate:,.0f}", f"{found.cpu_ms:.3f}", _shown(took),
                f"{calls / ROUNDS / JOBS:g} a job",
            )  # fmt: skip
    return table


def flights() -> Table:
    """Rows of equal jobs on four workers, and of as many that are not."""
    columns = ("", "calls", "first submission to last end", "CPU-ms per job")
    table = Table(f"{SAME:,} jobs at once, {WORKERS} workers, a call of {CALL_MS} ms", columns)
    with rig(latency_ms=CALL_MS) as bench, Client(bench.settings) as client:
        for _ in range(WORKERS):
            bench.start_worker()
        bench.warm_up(client)
        one = bench.requests(1)[0]
        for name, requests in (
            ("equal", [one] * SAME),
            ("equal, sharing off", [one | OFF] * SAME),
            ("no two equal", bench.requests(SAME)),
        ):
            before = bench.simulator.stats()["requests"]
            found = _drain(bench, client, requests)
            calls = bench.simulator.stats()["requests"] - before
            took_ms = len(requests) / found.rate * 1000
            table.add(name, f"{calls:,}", f"{took_ms:,.0f} ms", f"{found.cpu_ms:.2f}")
    return table


def _drain(bench: Rig, client: Client, requests: Sequence[Any]) -> Figures:
    """From the first submission to the end of the last job."""
    before, cpu_s, began = bench.ended(), bench.cpu_s(), stopwatch()
    client.submit_many(requests)
    wait_until(lambda: bench.ended() - before == len(requests), 300, "all jobs have ended")
    took_s, spent_s = stopwatch() - began, bench.cpu_s() - cpu_s
    return Figures(len(requests) / took_s, spent_s / len(requests) * 1000, bench.rss_mb())


async def _paced(bench: Rig, requests: Sequence[dict[str, Any]]) -> list[float]:
    """Milliseconds from each submission to its result in the caller's hands, in rising order."""
    took: list[float] = []

    async def one(client: AsyncClient, fields: dict[str, Any]) -> None:
        began = time.perf_counter()
        job = await client.submit(**fields)
        await job.result(timeout_s=30)
        took.append((time.perf_counter() - began) * 1000)

    async with AsyncClient(bench.settings) as client:
        tasks = []
        for fields in requests:
            tasks.append(asyncio.create_task(one(client, fields)))
            await asyncio.sleep(1 / PER_S)
        await asyncio.gather(*tasks)
    return sorted(took)


def _shown(ranked: list[float]) -> str:
    return f"{ranked[len(ranked) // 2]:.1f} / {ranked[int(len(ranked) * 0.99)]:.1f} ms"
