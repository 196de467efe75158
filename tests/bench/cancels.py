"""How long it takes to cancel waiting jobs, one by one, while a worker runs at its full rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from headgate import Client
from headgate.shared.settings import load
from tests import ROOT
from tests.bench.rig import Database, Rig, rig, run_child, stopwatch
from tests.bench.table import Table
from tests.support.child import ChildProcess

JOBS = 5_000
PER_S = 1_000
MODEL, POOL = "gpt-4o-mini", "openai/gpt-4o"


def measure(jobs: int = JOBS) -> Table:
    """On both databases: so many cancels one after the other, and the same in one call."""
    table = Table(
        f"{jobs:,} waiting jobs are cancelled while {PER_S:,} jobs/s come",
        ("", "took", "ms each", "CPU-ms each", "jobs/s meanwhile"),
    )
    databases: tuple[tuple[str, Database], ...] = (
        ("SQLite", "sqlite"),
        ("PostgreSQL", "postgresql"),
    )
    for name, database in databases:
        with (
            rig(latency_ms=50, database=database, load_provider=True) as bench,
            Client(bench.settings) as client,
        ):
            bench.start_worker()
            bench.warm_up(client)
            run_child(bench, "headgate", "pause", "pool", POOL)
            with _load(bench):
                for how, act in (("one by one", _one_by_one), ("in one call", _at_once)):
                    ids = client.submit_many(bench.requests(jobs, model="gpt-4o", fallback=False))
                    time.sleep(3)
                    table.add(f"{name}, {how}", *_measured(bench, client, act, ids))
    return table


def _measured(
    bench: Rig, client: Client, act: Callable[[Client, list[str]], int], ids: list[str]
) -> tuple[str, ...]:
    before, began, cpu_s = bench.ended(), stopwatch(), time.process_time()
    assert act(client, ids) == len(ids)
    took, used = stopwatch() - began, time.process_time() - cpu_s
    rate = (bench.ended() - before - len(ids)) / took
    each = 1000 / len(ids)
    return f"{took:.1f} s", f"{took * each:.2f}", f"{used * each:.2f}", f"{rate:,.0f}"


def _one_by_one(client: Client, ids: list[str]) -> int:
    return sum(client.cancel(job_id).status == "cancelled" for job_id in ids)


def _at_once(client: Client, ids: list[str]) -> int:
    return sum(result.status == "cancelled" for result in client.cancel_many(ids))


@contextmanager
def _load(bench: Rig) -> Iterator[None]:
    """Jobs come from another process meanwhile."""
    argv = [sys.executable, "-m", "tests.bench.cancels"]
    child = ChildProcess(argv, log_path=bench.folder / "load.log", env=bench.variables, cwd=ROOT)
    child.start()
    try:
        yield
    finally:
        child.kill()


def _submit_for_ever() -> None:
    prompt, n = "x" * 300, 0
    with Client(load()) as client:
        while True:
            began = stopwatch()
            requests: list[Any] = [
                {"prompt": f"{n + i} {prompt}", "model": MODEL, "params": {"max_tokens": 50}}
                for i in range(PER_S)
            ]
            client.submit_many(requests)
            n += PER_S
            time.sleep(max(0.0, 1 - (stopwatch() - began)))


if __name__ == "__main__":
    _submit_for_ever()
