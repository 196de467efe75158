"""How fast jobs are submitted: in bulk and one by one, beside Celery's apply_async.

CPU-ms is of the submitting process alone; Valkey (with its file) and PostgreSQL (with fsync) run
as processes of their own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from celery import Celery

from headgate import Client
from headgate.shared.settings import Settings
from tests.bench.rig import durable_postgres
from tests.bench.table import Table
from tests.support.servers import ValkeyServer, short_folder

PROMPT = "Summarise the following text in one sentence: " + "lorem ipsum dolor sit amet " * 20
BULK, SINGLE, ROUNDS = 20_000, 2_000, 5

Rounds = tuple[list[float], list[float]]
"""Jobs per second, and CPU-ms per job, of each round."""


def measure() -> Table:
    """The median of the rounds, slowest and fastest in brackets."""
    table = Table(f"submission (median of {ROUNDS})", ("", "jobs/s", "CPU-ms per job", "ratio"))
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        valkey = stack.enter_context(ValkeyServer(folder / "valkey", appendonly=True))
        celery = _celery(valkey)
        _add(table, "Celery's apply_async", celery, celery)
        databases = {
            "SQLite": f"sqlite:///{folder / 'bench.db'}",
            "PostgreSQL": stack.enter_context(durable_postgres(folder / "postgres")),
        }
        for name, url in databases.items():
            with valkey.client() as redis:
                redis.flushall()  # a Redis belongs to one database
            with _client(valkey, url, folder) as client:
                single = _rounds(SINGLE, partial(_one_by_one, client), valkey)
                _add(table, f"submit, {name}", single, celery)
                bulk = _rounds(BULK, partial(_in_bulk, client), valkey)
                _add(table, f"submit_many, {name}", bulk, celery)
                routed = _rounds(BULK, partial(_in_bulk, client, "auto"), valkey)
                _add(table, f"submit_many, {name}, model auto", routed, celery)
    return table


def _add(table: Table, name: str, found: Rounds, celery: Rounds) -> None:
    rates, cpu_ms = found
    rate = statistics.median(rates)
    spread = f"{rate:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
    ratio = rate / statistics.median(celery[0])
    table.add(name, spread, f"{statistics.median(cpu_ms):.3f}", f"{ratio:.1f}")


def _in_bulk(client: Client, model: str = "gpt-4o-mini") -> None:
    client.submit_many({"prompt": f"{PROMPT}{i}", "model": model} for i in range(BULK))


def _one_by_one(client: Client) -> None:
    for i in range(SINGLE):
        client.submit(f"{PROMPT}{i}", model="gpt-4o-mini")


def _celery(valkey: ValkeyServer) -> Rounds:
    app = Celery(broker=valkey.url, set_as_current=False)
    app.conf.task_ignore_result = True
    task = app.signature("headgate.run", queue="celery")

    def publish() -> None:
        for i in range(SINGLE):
            task.apply_async(args=({"prompt": f"{PROMPT}{i}", "model": "gpt-4o-mini"},))

    try:
        return _rounds(SINGLE, publish, valkey)
    finally:
        app.close()


@contextmanager
def _client(valkey: ValkeyServer, database_url: str, folder: Path) -> Iterator[Client]:
    from headgate.shared.database import migrate
    from headgate.shared.database.engine import open_engine

    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    settings = Settings(redis_url=valkey.url, database_url=database_url, home=folder / "home")
    with Client(settings) as client:
        client.submit("warm up")
        yield client


def _rounds(jobs: int, work: Callable[[], None], valkey: ValkeyServer) -> Rounds:
    rates, cpu_ms = [], []
    for _ in range(ROUNDS):
        with valkey.client() as redis:
            redis.flushall()
        began, cpu = time.perf_counter(), time.process_time()
        work()
        rates.append(jobs / (time.perf_counter() - began))
        cpu_ms.append((time.process_time() - cpu) * 1000 / jobs)
    return rates, cpu_ms
