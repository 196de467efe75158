"""A database that comes back without its last commits, as after a failover to a replica behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from headgate import Client
from headgate.shared.database.engine import open_engine, writing
from headgate.shared.database.tables import attempts, jobs
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import wait_until
from tests.support.servers import Simulator, ValkeyServer


@pytest.mark.slow
def test_jobs_in_flight_end_once_when_the_record_has_forgotten_them(
    valkey: ValkeyServer, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    simulator = simulator_factory("--latency-ms", "6000")
    url = f"sqlite:///{tmp_path / 'record.db'}"
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    settings = Settings(redis_url=valkey.url, database_url=url, home=tmp_path / "home")
    worker = installation.worker_process(env, tmp_path)
    with Client(settings) as client, installation.ended_afterwards(worker):
        forgotten, _unclaimed = client.submit_many(
            ["forgotten altogether", "claimed by nobody yet"]
        )
        worker.start()
        wait_until(
            lambda: installation.read_books(url).attempts.get("open") == 2, 30, "both in flight"
        )
        engine = open_engine(url)
        with writing(engine) as connection:
            connection.execute(delete(attempts))
            connection.execute(delete(jobs).where(jobs.c.id == forgotten))
            connection.execute(update(jobs).values(fence=0, status="queued"))
        engine.dispose()
        wait_until(lambda: installation.count_ended(url) == 2, 30, "both to end")
        assert worker.stop(30) == 0
    books = installation.read_books(url)
    assert books.jobs == {"succeeded": 2}
    assert books.attempts == {"answered": 2}
    assert books.audit_lines == 2
    assert books.audit_usd == books.ledger_usd
