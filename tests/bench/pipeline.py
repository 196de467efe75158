"""The full line, beside what else one could use, in one run: 50 ms provider, 500 in flight.

CPU-ms per job is of the asking process (or processes) alone; Valkey and the provider run beside
them on the same cores.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

import psutil

from headgate import Client
from tests import ROOT
from tests.bench.rig import Figures, Rig, median_of, rig, run_child, stopwatch
from tests.bench.table import Table
from tests.support.child import ChildProcess, wait_until

CALLS, IN_FLIGHT, LATENCY_MS, ROUNDS = 5_000, 500, 50, 5
STOCK_CALLS, STOCK_PROCESSES = 600, 8


def measure() -> Table:
    """One row per contender, in one run; medians of the rounds."""
    title = f"{LATENCY_MS} ms provider, {IN_FLIGHT} in flight, {CALLS:,} unique prompts"
    columns = ("", "jobs/s", "CPU-ms per job", "memory", "Valkey / provider / producer")
    table = Table(f"{title} (median of {ROUNDS})", columns)
    with rig(latency_ms=LATENCY_MS, concurrency=IN_FLIGHT, load_provider=True) as bench:
        with Client(bench.settings) as client:
            for processes in (1, 2):
                bench.start_worker()
                bench.warm_up(client)
                _in_turns(table, bench, client, processes)
        bench.stop_workers()
        name = "a bare AsyncOpenAI loop, transport default, which only calls"
        _add(table, name, median_of([_floor(bench, "default") for _ in range(ROUNDS)]))
        name = f"stock Celery, prefork, {STOCK_PROCESSES} processes, which only calls"
        _add(table, name, _stock(bench))
    return table


def _in_turns(table: Table, bench: Rig, client: Client, processes: int) -> None:
    """Headgate and the bare loop in turns, since the speed of a machine changes by the minute."""
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(bench.drain(client, CALLS * processes))
        bare.append(_floor(bench, "aiohttp"))
    name = f"Headgate, worker processes: {processes}; claim, cache, ledger, call, result, audit"
    _add(table, name, median_of(ours))
    _add(table, "a bare AsyncOpenAI loop, transport aiohttp, in turns with it", median_of(bare))
    pairs = list(zip(ours, bare, strict=True))
    rate = statistics.median(mine.rate / other.rate for mine, other in pairs)
    cpu = statistics.median(mine.cpu_ms / other.cpu_ms for mine, other in pairs)
    table.add("Headgate / bare loop, median of the turns", f"{rate:.2f}", f"{cpu:.2f}", "", "")


def _floor(bench: Rig, kind: str) -> Figures:
    words = (kind, bench.provider_url, str(CALLS), str(IN_FLIGHT))
    return Figures(**json.loads(run_child(bench, "tests.bench.floor", *words)))


def _stock(bench: Rig) -> Figures:
    """The median of as many rounds, of one worker."""
    with stock_worker(bench) as child, bench.client() as client:
        from celery import Celery

        app = Celery(broker=bench.valkey.url, set_as_current=False)
        wait_until(lambda: bool(app.control.ping(timeout=0.5)), 30, "the stock worker answers")
        processes = [psutil.Process(child.pid)]
        processes += processes[0].children(recursive=True)

        def left() -> int:
            return int(client.llen("celery")) + int(client.hlen("unacked"))

        def cpu_s() -> float:
            return sum(sum(process.cpu_times()[:2]) for process in processes)

        def drain(jobs: int) -> Figures:
            cpu, began = cpu_s(), stopwatch()
            _send(app, jobs)
            wait_until(lambda: left() == 0, 120, "all stock jobs have ended")
            took, spent = stopwatch() - began, cpu_s() - cpu
            rss_mb = sum(process.memory_info().rss for process in processes) / 1e6
            return Figures(jobs / took, spent / jobs * 1000, rss_mb)

        drain(STOCK_PROCESSES * 4)
        found = median_of([drain(STOCK_CALLS) for _ in range(ROUNDS)])
        app.close()
        return found


def stock_worker(bench: Rig) -> ChildProcess:
    """A stock prefork worker on the rig's Valkey, not started yet."""
    argv = [sys.executable, "-m", "celery", "-q", "-A", "tests.bench.stock", "worker"]
    argv += ["-P", "prefork", "-c", str(STOCK_PROCESSES), "--loglevel", "WARNING"]
    log = bench.folder / "stock.log"
    return ChildProcess(argv, log_path=log, env=bench.variables, cwd=ROOT)


def _send(app: Any, jobs: int) -> None:
    for i in range(jobs):
        app.send_task("stock.ask", args=[f"stock {i} " + "x" * 300], ignore_result=True)


def _add(table: Table, name: str, found: Figures) -> None:
    memory = f"{found.rss_mb:,.0f} MB"
    table.add(name, f"{found.rate:,.0f}", f"{found.cpu_ms:.2f}", memory, found.beside())
