"""A backup of the database is all one needs: it is restored, and nothing is paid for twice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headgate import Client, Request
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.servers import PostgresServer, Simulator, ValkeyServer

VACUUM_INTO = """
import sqlite3, sys
sqlite3.connect(sys.argv[1]).execute("VACUUM INTO ?", sys.argv[2:])
"""
"""What docs/backup.md says about a SQLite file that is in use."""


@dataclass
class Archive:
    """Backs up the database at `url`, and restores it where nothing is left of it."""

    url: str
    backup: Callable[[], None]
    restore: Callable[[], str]


def run(*argv: str | Path) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def sqlite_archive(tmp_path: Path) -> Archive:
    file, copy = tmp_path / "record.db", tmp_path / "copy.db"

    def restore() -> str:
        for path in tmp_path.glob("record.db*"):
            path.unlink()
        copy.replace(file)
        return f"sqlite:///{file}"

    def backup() -> None:
        run(sys.executable, "-c", VACUUM_INTO, file, copy)

    return Archive(f"sqlite:///{file}", backup, restore)


@pytest.fixture
def postgres_archive(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> Iterator[Archive]:
    dump = tmp_path / "headgate.dump"
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    engine.dispose()
    with postgres.database() as empty_url:

        def restore() -> str:
            run(postgres.programs / "pg_restore", "-d", empty_url, "--exit-on-error", dump)
            return empty_url

        pg_dump = (postgres.programs / "pg_dump", "-Fc", "-f", dump, postgres_url)
        yield Archive(postgres_url, lambda: run(*pg_dump), restore)


@pytest.mark.slow
@pytest.mark.parametrize(("database", "redis"), [("sqlite", "empty"), ("postgres", "kept")])
def test_a_restored_record_runs_what_was_queued_once_and_pays_for_no_answer_again(
    database: str, redis: str, valkey: ValkeyServer, simulator: Simulator, tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    archive: Archive = request.getfixturevalue(f"{database}_archive")
    place = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_SWEEP_S": "0.5",
    }

    def worker_on(url: str, name: str) -> WorkerProcess:
        env = place | {"HEADGATE_DATABASE_URL": url}
        return installation.worker_process(env, tmp_path, name)

    def client_of(url: str) -> Client:
        home = tmp_path / "home"
        return Client(Settings(redis_url=valkey.url, database_url=url, home=home))

    worker = worker_on(archive.url, "before")
    with client_of(archive.url) as client, installation.ended_afterwards(worker):
        worker.start()
        paid = client.submit_many(requests(1, 2, 3))
        answers = {one: client.result(one, timeout_s=90).content for one in paid}
        assert worker.stop(30) == 0
        owed = client.submit_many(requests(4, 5, 6))
        archive.backup()
        client.submit_many(requests(7))
    if redis == "empty":  # the last job is lost with the Redis
        with valkey.client() as flush:
            flush.flushall()
    url, count = archive.restore(), 6 if redis == "empty" else 7
    worker = worker_on(url, "after")
    with client_of(url) as client, installation.ended_afterwards(worker):
        assert {one: client.result(one).content for one in paid} == answers
        worker.start()
        for one in owed:
            assert client.result(one, timeout_s=90).status == "succeeded"
        wait_until(lambda: installation.count_ended(url) == count, 30, "all jobs to end")
        assert {one: client.result(one).content for one in paid} == answers
        assert worker.stop(30) == 0
    installation.the_books_agree(url, simulator, count, unknown=0)


def requests(*numbers: int) -> list[Request]:
    """Return requests that all cost the same."""
    params = {"max_tokens": 5}
    return [
        Request(prompt=f"prompt number {n:06d}", model=installation.MODEL, params=params)
        for n in numbers
    ]
