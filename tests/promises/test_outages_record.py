"""The database goes away, stands still, is slow, alone and together with Redis, under load."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from headgate import Client
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY
from tests.support.command import headgate
from tests.support.outages import (
    cpu_share,
    durable_database,
    each_user_said_it_once,
    ended,
    finished,
    frozen,
    said,
    scene,
)
from tests.support.proxy import TcpProxy
from tests.support.servers import PostgresServer, Simulator, ValkeyServer

JOBS = 900
pytestmark = pytest.mark.slow

LENGTHS = [
    pytest.param(4.0, id="for 4 s"),
    pytest.param(30.0, id="for 30 s", marks=pytest.mark.long),
]


@pytest.fixture
def slow_answers(simulator_factory: Callable[..., Simulator]) -> Simulator:
    """A provider that takes its time, so that calls are under way, and jobs left for a while."""
    return simulator_factory("--latency-ms", "300", "--latency-sigma", "0.2")


@pytest.fixture
def mortal(postgres_factory: Callable[[], PostgresServer]) -> Iterator[tuple[PostgresServer, str]]:
    """A PostgreSQL that may be killed, and the URL of its database."""
    server = postgres_factory()
    with durable_database(server) as url:
        yield server, url


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another program writes into the SQLite file and does not come to an end."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


@pytest.mark.parametrize("away_s", LENGTHS)
def test_all_wait_for_a_postgresql_that_is_down_and_say_so_once(
    away_s: float,
    valkey: ValkeyServer,
    mortal: tuple[PostgresServer, str],
    slow_answers: Simulator,
    tmp_path: Path,
) -> None:
    server, url = mortal
    with scene(tmp_path, slow_answers, valkey.url, url, count=JOBS, workers=2) as here:
        batch = here.batch("--max-in-flight", "200")
        with ExitStack() as stack:
            client = stack.enter_context(Client(Settings(**here.settings)))
            slow = f"[[fault:slow:ms={1000 * (away_s + 3):.0f}]]"  # under way all the while
            job = client.submit(slow, priority="interactive", params={"max_tokens": 5})
            words = ["result", job.id, "--wait"]
            waits = installation.command(words, here.env, tmp_path / "result.log")
            stack.enter_context(installation.ended_afterwards(batch, waits))
            batch.start()
            waits.start()
            here.until_ended(50)
            server.kill()
            here.calls_are_done(1)  # all but the slow one: their answers take CPU
            assert cpu_share(here.workers[0], away_s / 2) < 0.2
            told = headgate(["submit", "Hello"], here.env)
            assert told.code == 3
            assert "HEADGATE_DATABASE_URL" in told.err
            assert cpu_share(batch, away_s / 2) < 0.2
            server.start()
            assert job.result(timeout_s=60 * BUSY).attempts == 1
            ended(waits)
            finished(here, batch)
        here.all_is_well(others=1)
        for worker in here.workers:
            each_user_said_it_once(worker)
        assert batch.log().count("does not answer") == batch.log().count("answer again") == 1


@pytest.mark.long
@pytest.mark.parametrize("away_s", [5.0, 45.0], ids=["for a moment", "for longer than its bound"])
def test_a_postgresql_that_stands_still_is_waited_for(
    away_s: float,
    valkey: ValkeyServer,
    mortal: tuple[PostgresServer, str],
    slow_answers: Simulator,
    tmp_path: Path,
) -> None:
    server, url = mortal
    with scene(tmp_path, slow_answers, valkey.url, url, count=JOBS) as here:
        with here.under_load(100), frozen(server):
            assert cpu_share(here.workers[0], away_s) < 0.2
        if away_s > 20:
            each_user_said_it_once(here.workers[0])


@pytest.mark.long
@pytest.mark.parametrize("away_s", [4.0, 30.0])
def test_a_sqlite_file_that_another_program_locks_is_waited_for(
    away_s: float,
    valkey: ValkeyServer,
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    with scene(tmp_path, slow_answers, valkey.url, sqlite_url, count=JOBS, workers=2) as here:
        with here.under_load(100), locked(sqlite_url):
            assert cpu_share(here.workers[0], away_s) < 0.2
        if away_s > 10:
            for worker in here.workers:
                each_user_said_it_once(worker)


@pytest.mark.parametrize("first", ["Redis", pytest.param("the database", marks=pytest.mark.long)])
def test_both_down_may_come_back_in_either_order(
    first: str,
    valkey_factory: Callable[..., ValkeyServer],
    mortal: tuple[PostgresServer, str],
    slow_answers: Simulator,
    tmp_path: Path,
) -> None:
    server, (database, url) = valkey_factory(appendonly=True), mortal
    with scene(tmp_path, slow_answers, server.url, url, count=JOBS) as here:
        with here.under_load(50):
            server.kill()
            database.kill()
            here.calls_are_done()  # their answers take CPU
            assert cpu_share(here.workers[0], 2) < 0.2
            for one in (server, database) if first == "Redis" else (database, server):
                one.start()
                time.sleep(1)  # each may do harm while it is back alone
        each_user_said_it_once(here.workers[0])


@pytest.mark.long
def test_commits_of_two_seconds_are_slow_and_nothing_worse(
    valkey: ValkeyServer,
    postgres_url: str,
    tcp_proxy: Callable[[int], TcpProxy],
    postgres: PostgresServer,
    slow_answers: Simulator,
    tmp_path: Path,
) -> None:
    line = tcp_proxy(postgres.port)
    url = f"postgresql://postgres@127.0.0.1:{line.port}/{postgres_url.rpartition('/')[2]}"
    with scene(tmp_path, slow_answers, valkey.url, url, count=200) as here, ExitStack() as stack:
        batch = here.batch()
        stack.enter_context(installation.ended_afterwards(batch))
        batch.start()
        here.until_ended(50)
        line.delay(0.2)  # of each packet: a group is five statements and a commit
        here.until_ended(110)
        line.cut_after(40)
        line.delay(0)
        ended(batch)
        finished(here, batch)
        here.all_is_well()
        assert len(said(here.workers[0], "does not answer")) <= 1
