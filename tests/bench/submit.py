"""How fast jobs are submitted: in bulk and one by one, beside Celery's apply_async.

Run as `python -m tests.bench submit`. CPU-ms is of the submitting process alone; Valkey and
PostgreSQL run as processes of their own.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from celery import Celery

from producer import Client
from shared.settings import Settings
from tests.servers import PostgresServer, ValkeyServer, short_folder

PROMPT = "Summarise the following text in one sentence: " + "lorem ipsum dolor sit amet " * 20
BULK, SINGLE, ROUNDS = 20_000, 2_000, 5


def main() -> None:
    """The figures are printed: median of the rounds, slowest and fastest in brackets."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        valkey = stack.enter_context(ValkeyServer(folder / "valkey"))
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        celery_rate = _celery(valkey)
        databases = {
            "SQLite": f"sqlite:///{folder / 'bench.db'}",
            "PostgreSQL": stack.enter_context(postgres.database()),
        }
        for name, url in databases.items():
            with _client(valkey, url, folder) as client:
                single = _rate(f"submit, {name}", SINGLE, partial(_one_by_one, client), valkey)
                bulk = _rate(f"submit_many, {name}", BULK, partial(_in_bulk, client), valkey)
            ratios = f"{single / celery_rate:.1f} and {bulk / celery_rate:.1f}"
            _line(f"  ratio to apply_async: {ratios}")


def _in_bulk(client: Client) -> None:
    client.submit_many({"prompt": f"{PROMPT}{i}", "model": "gpt-4o-mini"} for i in range(BULK))


def _one_by_one(client: Client) -> None:
    for i in range(SINGLE):
        client.submit(f"{PROMPT}{i}", model="gpt-4o-mini")


def _celery(valkey: ValkeyServer) -> float:
    app = Celery(broker=valkey.url, set_as_current=False)
    app.conf.task_ignore_result = True
    task = app.signature("headgate.run", queue="celery")

    def publish() -> None:
        for i in range(SINGLE):
            task.apply_async(args=({"prompt": f"{PROMPT}{i}", "model": "gpt-4o-mini"},))

    try:
        return _rate("Celery apply_async", SINGLE, publish, valkey)
    finally:
        app.close()


@contextmanager
def _client(valkey: ValkeyServer, database_url: str, folder: Path) -> Iterator[Client]:
    from shared import migrate
    from shared.connections import open_engine

    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    settings = Settings(redis_url=valkey.url, database_url=database_url, home=folder / "home")
    with Client(settings) as client:
        client.submit("warm up")
        yield client


def _rate(name: str, jobs: int, work: Callable[[], None], valkey: ValkeyServer) -> float:
    rates, cpu_ms = [], []
    for _ in range(ROUNDS):
        with valkey.client() as redis:
            redis.flushall()
        began, cpu = time.perf_counter(), time.process_time()
        work()
        rates.append(jobs / (time.perf_counter() - began))
        cpu_ms.append((time.process_time() - cpu) * 1000 / jobs)
    rate = statistics.median(rates)
    _line(
        f"{name:28} {rate:9,.0f} jobs/s ({min(rates):,.0f} to {max(rates):,.0f})"
        f"   {statistics.median(cpu_ms):.3f} CPU-ms/job"
    )
    return rate


def _line(text: str) -> None:
    print(text, flush=True)  # noqa: T201  a bench prints


if __name__ == "__main__":
    main()
