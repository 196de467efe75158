"""No-op jobs per second: pool, Fetcher and Celery's bookkeeping, with the server's file on disk."""

from __future__ import annotations

import statistics
import time

from headgate.shared.broker import queues
from headgate.shared.broker.keys import Keys
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id, now_ms
from headgate.shared.job.request import request_from
from tests.bench.rig import Rig, rig, stopwatch
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, ROUNDS, PACED = 40_000, 3, 100


def measure() -> Table:
    """Jobs per second and CPU-ms per job of one worker process; idle cost; submission to start."""
    table = Table("parts", ("", "figure"))
    with rig() as bench:
        worker = bench.start_worker("tests.support.noop")
        time.sleep(2)
        cpu, began = bench.cpu_s(), stopwatch()
        time.sleep(5)
        idle = (bench.cpu_s() - cpu) / (stopwatch() - began) * 100
        rss_mb = worker.memory_info().rss / 1e6
        table.add("an idle worker", f"{idle:.1f} % CPU, {rss_mb:.0f} MB")
        words = "submission to the end of a no-op job, idle worker"
        table.add(words, f"{_paced(bench):.1f} ms (p50)")
        rates, cpus = zip(*(_drain(bench) for _ in range(ROUNDS)), strict=True)
        found = f"{statistics.median(rates):,.0f} jobs/s ({min(rates):,.0f} to {max(rates):,.0f})"
        words = "no-op jobs through Celery, pool and Fetcher, one worker process"
        table.add(words, f"{found}, {statistics.median(cpus):.3f} CPU-ms per job")
    return table


def _job(silent: bool) -> tuple[Envelope, bytes]:
    wish = {"silent": 1} if silent else {}
    envelope = Envelope(
        id=new_id(),
        request=request_from({"prompt": "x" * 400, "metadata": wish}),
        model="gpt-4o-mini",
        model_class="fast",
        submitted_at_ms=now_ms(),
    )
    return envelope, envelope.encode()


def _drain(bench: Rig) -> tuple[float, float]:
    client, keys = bench.client(), Keys()
    queues.send(client, keys, [_job(silent=True) for _ in range(JOBS)])
    cpu, began = bench.cpu_s(), stopwatch()
    left = client.scard(keys.present())
    wait_until(lambda: client.scard(keys.present()) == 0, 120, "all jobs are acknowledged")
    spent = bench.cpu_s() - cpu
    client.close()
    return left / (stopwatch() - began), spent / left * 1000


def _paced(bench: Rig) -> float:
    client, keys, took = bench.client(), Keys(), []
    for done in range(PACED):
        job = _job(silent=False)
        began = stopwatch()
        queues.send(client, keys, [job])
        while client.llen("noop:runs") == done:
            pass
        took.append((stopwatch() - began) * 1000)
        time.sleep(0.02)
    client.close()
    return statistics.median(took)
