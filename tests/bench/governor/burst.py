"""A quarter of a minute's worth of jobs at once, on a pool whose bucket holds a minute."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from headgate import Client
from tests.bench.governor.load import Span
from tests.bench.rig import Rig, rig, stopwatch
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, TOKENS, LATENCY_MS = 1_000, 500, 2_000
MODEL, WARM, TPM, RPM = "gpt-4o-mini", "gpt-4.1-mini", JOBS * TOKENS * 4, 30_000
CATALOG = f"""
[pools."openai/{MODEL}"]
rpm = {RPM}
tpm = {TPM}
"""
FLAGS = ("--limit", f"{MODEL}:rpm={RPM},tpm={TPM}", "--burst-s", "60", "--headers", "bucket")


def burst(_span: Span) -> Table:
    """Two rows: a pool that no header was seen of, and one that was asked a moment ago."""
    title = f"{JOBS:,} jobs of {TOKENS} tokens at {TPM:,} tpm, an answer takes {LATENCY_MS} ms"
    table = Table(title, ("", "all ended after", "allowed", "refusals"))
    with rig(
        latency_ms=LATENCY_MS, simulator_flags=FLAGS, catalog=CATALOG, concurrency=JOBS + 200
    ) as bench:
        bench.start_worker()
        with Client(bench.settings) as client:
            bench.warm_up(client, model=WARM)
            _add(table, bench, client, "a new pool", 2 * LATENCY_MS / 1000 + 1)
            bench.stop_workers()
            bench.start_worker()
            bench.warm_up(client, model=WARM)
            _tell(bench, "_reset")  # the provider's buckets are full again
            _drain(bench, client, 20)  # its headers say so
            name = "headers seen in the last minute"
            _add(table, bench, client, name, LATENCY_MS / 1000 + 1)
    return table


def _add(table: Table, bench: Rig, client: Client, name: str, allowed_s: float) -> None:
    took_s = _drain(bench, client, JOBS)
    refused = _tell(bench, "_stats")["refusals"].get("rate_limited", 0)
    table.add(name, f"{took_s:.1f} s", f"{allowed_s:.1f} s", str(refused))


def _drain(bench: Rig, client: Client, jobs: int) -> float:
    """Seconds from the submission to the last end."""
    text = "x" * (4 * (TOKENS - 50))
    requests: list[Any] = [
        {"prompt": f"{n:06d} of {stopwatch()} {text}"[: 4 * (TOKENS - 50)], "model": MODEL,
         "params": {"max_tokens": 50}}
        for n in range(jobs)
    ]  # fmt: skip
    before, began = bench.ended(), stopwatch()
    client.submit_many(requests)
    wait_until(lambda: bench.ended() - before == jobs, 120, "all jobs to end")
    return stopwatch() - began


def _tell(bench: Rig, what: str) -> dict[str, dict[str, int]]:
    url = f"{bench.simulator.url}/{what}"
    data = b"{}" if what == "_reset" else None
    with urllib.request.urlopen(url, data=data, timeout=30) as reply:  # noqa: S310  loopback
        found: dict[str, dict[str, int]] = json.loads(reply.read() or b"{}")
    return found
