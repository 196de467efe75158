"""Every bad day of PostgreSQL under one running worker: it waits, says so once, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headgate import Client, RequestFields, Unreachable
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.postgres import Day, Days
from tests.support.servers import PostgresServer, Simulator, ValkeyServer

#: Each day, and what a producer is told on it.
DAYS: list[tuple[Day, str]] = [
    (Days.killed, "refused"),
    (Days.session_killed, ""),  # over too soon for anybody to meet it for certain
    (Days.sessions_ended, "not currently accepting connections"),
    (Days.read_only, "read-only transaction"),
    (Days.too_many, "too many connections"),
    (Days.disk_full, "could not extend file"),
    (Days.locked, "lock timeout"),
    (Days.frozen, "timeout"),
    (Days.password_changed, "password authentication failed"),
    (Days.tables_gone, "does not exist"),
]
JOBS = 60

TIMEOUT_S = 4
"""A lock is waited for a quarter of it; on a good day nothing takes so long."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_every_bad_day_of_postgresql_workers_wait_and_say_so_once(
    valkey: ValkeyServer,
    postgres_factory: Callable[[], PostgresServer],
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    days = Days(postgres_factory())
    simulator = simulator_factory("--latency-ms", "200")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": days.url,
        "HEADGATE_DATABASE_TIMEOUT_S": str(TIMEOUT_S),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "5",  # slow, so that there are jobs left when a day begins
    }
    settings = Settings(
        redis_url=valkey.url, database_url=days.url, database_timeout_s=TIMEOUT_S,
        home=tmp_path / "home",
    )  # fmt: skip
    assert headgate(["db", "upgrade"], env).code == 0
    worker = installation.worker_process(env, tmp_path)
    sent, before = 0, ""

    def ended() -> int:
        return installation.count_ended(days.server.url("record"))

    def said(words: str) -> int:
        return worker.log().count(words) - before.count(words)

    with installation.ended_afterwards(worker), Client(settings) as client:
        worker.start()
        for day, told in DAYS:
            name = day.__name__
            before = worker.log()
            client.submit_many(_prompt(n) for n in range(sent, sent + JOBS))
            wait_until(lambda: simulator.stats()["open_now"], 20, f"{name}: calls to be under way")
            with day(days):
                if told:
                    wait_until(lambda: said("the database does not answer"), 20, f"{name}: a word")
                    with pytest.raises(Unreachable, match=told):
                        client.submit("nobody runs this one")
            sent += JOBS
            wait_until(lambda: ended() == sent, 30, f"{name}: all jobs to end")  # noqa: B023
            both = ("the database does not answer", "the database answers again")
            wait_until(lambda: said(both[0]) == said(both[1]), 20, f"{name}: the log")  # noqa: B023
            words = said(both[0])
            assert words == 1 or (words == 0 and not told), (name, worker.log_end())
        assert worker.stop(30) == 0, worker.log_end()
    assert "Traceback" not in worker.log(), worker.log_from("Traceback")
    assert "app-password" not in worker.log()
    installation.the_books_agree(days.server.url("record"), simulator, sent, unknown=0)


def _prompt(number: int) -> RequestFields:
    return {
        "prompt": f"prompt number {number:06d}",
        "model": installation.MODEL,
        "params": {"max_tokens": 5},
    }
