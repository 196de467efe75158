"""The full line, beside what else one could use, in one run: 50 ms provider, 500 in flight.

CPU-ms per job is of the asking process (or processes) alone; Valkey and the provider run beside
them on the same cores.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time

import psutil

from producer import Client
from shared.settings import Settings
from tests.bench.rig import ROOT, Rig, line, rig, run_child, stopwatch
from tests.child import ChildProcess, wait_until

CALLS, IN_FLIGHT, LATENCY_MS, STOCK_CALLS, STOCK_PROCESSES = 5_000, 500, 50, 600, 8


def main() -> None:
    """One line per contender: jobs/s, CPU-ms per job, memory."""
    line(f"provider answers after {LATENCY_MS} ms, {IN_FLIGHT} in flight, {CALLS:,} unique prompts")
    with rig(latency_ms=LATENCY_MS) as bench:
        for kind in ("default", "aiohttp"):
            found = json.loads(
                run_child(
                    bench, "tests.bench.floor", kind, str(bench.simulator_url), str(CALLS),
                    str(IN_FLIGHT),
                )
            )  # fmt: skip
            name = f"bare AsyncOpenAI loop, {kind}"
            _show(name, found["rate"], found["cpu_ms"], found["rss_mb"])
        _stock(bench)
        _ours(bench)


def _ours(bench: Rig) -> None:
    settings = Settings(redis_url=bench.valkey.url, home=bench.folder / "home")
    with Client(settings) as client:
        bench.start_worker("workers.app")
        client.submit("warm up").result(timeout_s=30)
        client.submit("warm up", model="claude-haiku-4-5").result(timeout_s=30)
        time.sleep(1)
        database = sqlite3.connect(bench.folder / "home" / "headgate.db")

        def ended() -> int:
            query = "SELECT count(*) FROM audit"
            return int(database.execute(query).fetchone()[0])

        before, cpu, began = ended(), bench.cpu_s(), stopwatch()
        client.submit_many(
            {"prompt": f"ours {i} " + "x" * 300, "params": {"max_tokens": 50}} for i in range(CALLS)
        )
        wait_until(lambda: ended() - before == CALLS, 120, "all jobs have ended")
        took, spent = stopwatch() - began, bench.cpu_s() - cpu
        _show("Headgate, one worker", CALLS / took, spent / CALLS * 1000, bench.rss_mb())
        database.close()


def _stock(bench: Rig) -> None:
    argv = [sys.executable, "-m", "celery", "-q", "-A", "tests.bench.stock", "worker"]
    argv += ["-P", "prefork", "-c", str(STOCK_PROCESSES), "--loglevel", "WARNING"]
    log = bench.folder / "stock.log"
    with ChildProcess(argv, log_path=log, env=bench.variables, cwd=ROOT) as child:
        from celery import Celery

        app = Celery(broker=bench.valkey.url, set_as_current=False)
        client = bench.client()
        wait_until(lambda: bool(app.control.ping(timeout=0.5)), 30, "the stock worker answers")
        processes = [psutil.Process(child.pid)]
        processes += processes[0].children(recursive=True)
        _send(app, STOCK_PROCESSES * 4)
        wait_until(lambda: _left(bench) == 0, 60, "the warm-up has ended")

        def cpu_s() -> float:
            return sum(sum(process.cpu_times()[:2]) for process in processes)

        cpu, began = cpu_s(), stopwatch()
        _send(app, STOCK_CALLS)
        wait_until(lambda: _left(bench) == 0, 120, "all stock jobs have ended")
        took, spent = stopwatch() - began, cpu_s() - cpu
        rss_mb = sum(process.memory_info().rss for process in processes) / 1e6
        name = f"stock Celery prefork -c {STOCK_PROCESSES}"
        _show(name, STOCK_CALLS / took, spent / STOCK_CALLS * 1000, rss_mb)
        client.close()
        app.close()


def _send(app: object, jobs: int) -> None:
    for i in range(jobs):
        app.send_task("stock.ask", args=[f"stock {i} " + "x" * 300], ignore_result=True)  # type: ignore[attr-defined]  # Celery's stubs hide it


def _left(bench: Rig) -> int:
    client = bench.client()
    try:
        return int(client.llen("celery")) + int(client.hlen("unacked"))
    finally:
        client.close()


def _show(name: str, rate: float, cpu_ms: float, rss_mb: float) -> None:
    line(f"{name:34} {rate:8,.0f} jobs/s   {cpu_ms:6.2f} CPU-ms/job   {rss_mb:5,.0f} MB")
