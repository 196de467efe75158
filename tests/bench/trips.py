"""What one job costs the servers: Redis commands and round trips, and commits of the record."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import text

from headgate import Client
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine, reading
from tests.bench.rig import Rig, rig
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, LATENCY_MS = 5_000, 50


def measure() -> Table:
    """Submission alone, then submission and the whole line; both under load and one at a time."""
    columns = ("", "round trips", "scripts", "commands, scripts' own included", "commits")
    table = Table("per job: to Redis and to the record (PostgreSQL)", columns)
    with (
        rig(latency_ms=LATENCY_MS, database="postgresql") as bench,
        Client(bench.settings) as client,
    ):
        client.submit("opens the connections")
        before = _counted(bench)
        client.submit_many(bench.requests(JOBS))
        _add(table, "submit_many", _counted(bench) - before, JOBS)
        bench.start_worker()
        _all_ended(bench)
        bench.warm_up(client)
        _all_ended(bench)
        before = _counted(bench)
        client.submit_many(bench.requests(JOBS))
        _all_ended(bench)
        spent = _counted(bench) - before
        _add(table, "submit_many and the whole line, 500 in flight", spent, JOBS)
        most = Counter({name: n for name, n in spent.items() if name.startswith("cmdstat_")})
        before = _counted(bench)
        for request in bench.requests(100):
            client.submit(**request).result(timeout_s=30)
        _all_ended(bench)
        name = "submit, the whole line and waiting for the result, one at a time"
        _add(table, name, _counted(bench) - before, 100)
    shown = (f"{name.removeprefix('cmdstat_')} {n / JOBS:.2f}" for name, n in most.most_common(12))
    table.note = "Redis commands per job under load: " + ", ".join(shown)
    return table


def _counted(bench: Rig) -> Counter[str]:
    """All commands by name, reads from sockets, and transactions that wrote, since the start."""
    with bench.client() as client:
        stats: Any = client.info("commandstats")
        reads: Any = client.info("stats")
    counted = Counter({name: int(one["calls"]) for name, one in stats.items()})
    counted["reads"] = int(reads["total_reads_processed"])
    engine = open_engine(bench.database_url)
    try:
        with reading(engine) as connection:  # each writing transaction takes one number
            query = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
            counted["commits"] = int(connection.scalar(query) or 0)
    finally:
        engine.dispose()
    return counted


def _all_ended(bench: Rig) -> None:
    with bench.client() as client:
        # A look each 50 ms is counted too: a few hundredths of a command per job.
        wait_until(lambda: client.scard(Keys().present()) == 0, 120, "all jobs have ended")


def _add(table: Table, name: str, spent: Counter[str], jobs: int) -> None:
    scripts = spent["cmdstat_evalsha"] + spent["cmdstat_eval"]
    commands = sum(n for key, n in spent.items() if key.startswith("cmdstat_"))
    cells = (spent["reads"], scripts, commands, spent["commits"])
    table.add(name, *(f"{count / jobs:.3f}" for count in cells))
