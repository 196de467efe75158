"""Bad days of a SQLite file: locked, its turn kept, full, read-only, no database at all."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy.exc import OperationalError

from headgate import Client, RequestFields, Unreachable
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, writing
from headgate.shared.database.sqlite_lock import turn
from headgate.shared.settings import Settings
from tests.promises.test_bad_input import WITHOUT_ROOTS_RIGHT
from tests.support import installation
from tests.support.child import ChildProcess, wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

#: Takes the turn to write, says so, and keeps it.
KEEP_TURN = """
import sys, time
from pathlib import Path
from headgate.shared.database.sqlite_lock import turn
with turn(sys.argv[1], 60):
    Path(sys.argv[2]).touch()
    time.sleep(60)
"""


@pytest.fixture
def env(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the environment of an installation on a SQLite file, with its tables."""
    settings = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
        "HEADGATE_DATABASE_TIMEOUT_S": "5",
        "HEADGATE_CONCURRENCY": "5",  # so that some of 40 jobs are still to end after the first
    }
    assert headgate(["db", "upgrade"], settings).code == 0
    return settings


@pytest.fixture
def client(env: dict[str, str], tmp_path: Path) -> Iterator[Client]:
    settings = Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=env["HEADGATE_DATABASE_URL"],
        database_timeout_s=5, home=tmp_path / "home",
    )  # fmt: skip
    with Client(settings) as opened:
        yield opened


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program, which knows nothing of turns, has the file for itself."""
    other = sqlite3.connect(path, isolation_level=None, timeout=60)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@contextmanager
def turn_kept(path: Path) -> Iterator[None]:
    """Let a writer stand still in the middle of its turn."""
    told = path.with_name("told")
    argv: list[str | Path] = [sys.executable, "-c", KEEP_TURN, path, told]
    keeper = ChildProcess(argv, log_path=path.with_name("keeper.log"))
    try:
        keeper.start()
        wait_until(told.exists, 20, "the turn to be taken")
        keeper.freeze()
        yield
    finally:
        keeper.kill()


@pytest.mark.slow
def test_a_worker_waits_for_a_locked_or_full_file_and_says_so_once(
    env: dict[str, str],
    client: Client,
    simulator_factory: Callable[..., Simulator],
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "headgate.db"
    simulator = simulator_factory("--latency-ms", "100")
    worker = installation.worker_process(env | {"HEADGATE_SIMULATOR_URL": simulator.url}, tmp_path)
    before, sent = "", 0

    def said(words: str) -> int:
        return worker.log().count(words) - before.count(words)

    @contextmanager
    def full(path: Path) -> Iterator[None]:
        """Fill the worker's disk: none of its files may grow."""
        process = psutil.Process(worker.pid)
        hard = process.rlimit(psutil.RLIMIT_FSIZE)[1]
        process.rlimit(psutil.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
        yield
        process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))

    days = [(locked, "locked"), (turn_kept, "locked")]
    if sys.platform == "linux":  # elsewhere no limit can be set for another process
        days.append((full, ""))
    with installation.ended_afterwards(worker):
        worker.start()
        for day, told in days:
            before = worker.log()
            client.submit_many(prompt(n) for n in range(sent, sent + 35))
            client.submit_many(prompt(n, SLOW) for n in range(sent + 35, sent + 40))
            wait_until(lambda: installation.count_ended(sqlite_url) > sent, 20, "jobs to end")  # noqa: B023
            with day(path):
                wait_until(lambda: said("the database does not answer"), 20, "a word")
                if told:
                    with pytest.raises(Unreachable, match=told):
                        client.submit("nobody runs this one")
            sent += 40
            wait_until(lambda: installation.count_ended(sqlite_url) == sent, 30, "all to end")  # noqa: B023
            wait_until(lambda: said("the database answers again") == 1, 20, "the log to say so")
            assert said("the database does not answer") == 1, worker.log_end()
        assert worker.stop(30) == 0, worker.log_end()
    assert "Traceback" not in worker.log(), worker.log_from("Traceback")
    installation.the_books_agree(sqlite_url, simulator, sent, unknown=0)


SLOW = "[[fault:slow:ms=9000]]"
"""Is answered in the middle of the bad day, however long that takes to begin."""


def prompt(number: int, fault: str = "") -> RequestFields:
    words = f"{fault}prompt number {number:06d}"
    return {"prompt": words, "model": installation.MODEL, "params": {"max_tokens": 5}}


def test_a_writer_that_waits_too_long_fails_and_the_next_one_gets_its_turn(tmp_path: Path) -> None:
    path = str(tmp_path / "x.db")
    told = "another process has been writing"
    with turn(path, 1), pytest.raises(OperationalError, match=told), turn(path, 0.05):
        pass
    with turn(path, 5):  # the waiting that was given up has not taken it for nobody
        assert Path(f"{path}.turn").exists()


def test_turns_are_handed_on_to_all_who_wait(tmp_path: Path) -> None:
    path, most, inside = str(tmp_path / "x.db"), 0, 0

    def write() -> None:
        nonlocal most, inside
        for _ in range(20):
            with turn(path, 20):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 1


def test_a_file_that_is_no_database_is_refused_and_left_alone(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, this is no database. " * 100)
    before = path.read_bytes()
    env = {"HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": valkey.url}
    env |= {"HEADGATE_DATABASE_URL": f"sqlite:///{path}"}
    for words in (["db", "check"], ["db", "upgrade"], ["submit", "x"], ["jobs"]):
        ended = headgate(words, env)
        assert ended.code == 3, (words, ended)
        assert "is not a database" in ended.err
        assert "Traceback" not in ended.err
    assert path.read_bytes() == before


def test_a_read_only_file_is_refused_with_the_reason(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(exist_ok=True)
    for path in tmp_path.glob("headgate.db*"):
        path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", WITHOUT_ROOTS_RIGHT, "submit", "x"], env={**os.environ, **env},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        tmp_path.chmod(0o755)
    assert ended.returncode == 3, ended
    assert "read" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr


def test_a_record_in_a_home_that_is_open_to_all_is_its_owners_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    engine = open_engine(f"sqlite:///{home / 'headgate.db'}")
    migrate.upgrade(engine)
    with writing(engine):
        modes = {path.name: path.stat().st_mode & 0o777 for path in home.glob("headgate.db*")}
    engine.dispose()
    assert {"headgate.db", "headgate.db-wal", "headgate.db-shm"} <= modes.keys()
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {}
