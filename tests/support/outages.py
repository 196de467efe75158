"""What the tests of outages share: an installation under load whose servers can be taken away."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from tests.support import installation
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import PostgresServer, Simulator

LEASE_S = 6.0
"""A worker that meets the others again after an outage has so long to renew its leases."""

LOST, BACK = "does not answer", "answers again after"


@dataclass
class Scene:
    """One batch of equal prompts, its workers, and the figures that must agree at the end."""

    folder: Path
    env: dict[str, str]
    simulator: Simulator
    count: int
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The record."""
        return installation.database_url(self.env)

    @property
    def out(self) -> Path:
        """The output of the batch."""
        return self.folder / "out.jsonl"

    def batch(self, *flags: str) -> ChildProcess:
        """The command that runs the batch, not started yet."""
        source = self.folder / "in.jsonl"
        if not source.exists():
            installation.write_prompts(source, self.count)
        words: list[str | Path] = ["batch", "run", source, "-o", self.out, *flags]
        return installation.command(words, self.env, self.folder / "batch.log")

    def until_ended(self, wanted: int, within_s: float = 60) -> None:
        """At least so many jobs have ended."""
        wait_until(
            lambda: installation.count_ended(self.url) >= wanted, within_s, f"{wanted} jobs to end"
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What a client in this process needs to be one of this installation's."""
        return {
            name.removeprefix("HEADGATE_").lower(): text
            for name, text in self.env.items()
            if name in ("HEADGATE_HOME", "HEADGATE_REDIS_URL", "HEADGATE_DATABASE_URL")
        }

    def all_is_well(self, unknown: int = 0, others: int = 0) -> None:
        """Every line has its answer once, and the record agrees with the provider's bill.

        `others`: jobs that are none of the batch.
        """
        installation.each_is_answered_once(self.out, self.count)
        installation.the_books_agree(self.url, self.simulator, self.count + others, unknown)

    @contextmanager
    def under_load(self, ended: int, *flags: str) -> Iterator[ChildProcess]:
        """The batch runs, and this many of its jobs have ended; afterwards all has ended well."""
        batch = self.batch(*flags)
        with installation.ended_afterwards(batch):
            batch.start()
            self.until_ended(ended)
            yield batch
            finished(self, batch)
        self.all_is_well()

    def calls_are_done(self, left: int = 0) -> None:
        """No more requests than these are at the provider."""
        wait_until(lambda: self.simulator.stats()["open_now"] <= left, 30, "the calls to end")


@contextmanager
def scene(
    folder: Path,
    simulator: Simulator,
    redis_url: str,
    database_url: str,
    *,
    count: int,
    workers: int = 1,
    **settings: object,
) -> Iterator[Scene]:
    """Workers run on these servers; all that was started has ended afterwards."""
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    env = {
        "HEADGATE_HOME": str(folder / "home"),
        "HEADGATE_REDIS_URL": redis_url,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "50",
        "HEADGATE_LEASE_S": str(LEASE_S),
        "HEADGATE_SWEEP_S": "2",
        **{f"HEADGATE_{name.upper()}": str(value) for name, value in settings.items()},
    }
    made = Scene(folder, env, simulator, count)
    with ExitStack() as stack:
        for n in range(workers):
            worker = installation.worker_process(env, folder, f"w{n}")
            stack.enter_context(installation.ended_afterwards(worker))
            made.workers.append(worker.start())
        yield made


def cpu_share(process: ChildProcess, seconds: float) -> float:
    """How much of a core the process used over these seconds."""
    seen = psutil.Process(process.pid)
    before, began = seen.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after = seen.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return used_s / (time.monotonic() - began)


def said(worker: ChildProcess, words: str) -> list[str]:
    """The lines of the worker's log with these words."""
    return [line for line in worker.log().splitlines() if words in line]


def words_of(worker: ChildProcess) -> str:
    """The worker's log without its lines for each job."""
    lines = worker.log().splitlines()
    return "\n".join(
        line for line in lines if line.startswith("[20") and "Task headgate.run" not in line
    )


def each_user_said_it_once(worker: ChildProcess, outages: int = 1) -> None:
    """Who missed a server said so once in each outage, and once that it was back, with how long."""
    lost, back = said(worker, LOST), said(worker, BACK)
    users = Counter(re.sub(r".*\] | \(.*\)", "", line) for line in lost)
    assert users, f"nobody missed anything:\n{words_of(worker)}"
    assert max(users.values()) <= outages, f"{users}\n{words_of(worker)}"
    # The sweep, which looks now and then, may have been stopped before it saw it.
    assert len(lost) - 1 <= len(back) <= len(lost), words_of(worker)


def nothing_went_wrong(workers: Sequence[ChildProcess]) -> None:
    """No worker has logged a traceback or an error of its own."""
    for worker in workers:
        log = words_of(worker)
        assert "Traceback" not in worker.log(), worker.log_from("Traceback")
        assert "ERROR" not in log, log


def ended(command: ChildProcess, within_s: float = 60) -> None:
    """The command has come to its end with 0."""
    assert installation.exit_code(command, within_s) == 0, command.log_end()


@contextmanager
def durable_database(server: PostgresServer) -> Iterator[str]:
    """A new database that keeps its word when the server is killed: what was committed stays.

    The tests' servers run without it, for speed: they lose the last commits with a kill.
    """
    with server.database() as url:
        name = url.rpartition("/")[2]
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on".encode())
        yield url


@contextmanager
def frozen(*servers: ChildProcess) -> Iterator[None]:
    """The servers stand still, sessions included: connections stay open, and nothing answers."""
    stopped: list[psutil.Process] = []
    try:
        for server in servers:
            first = psutil.Process(server.pid)
            stopped.append(first)
            first.suspend()  # from now on it starts no session
            for process in first.children(recursive=True):
                stopped.append(process)
                with suppress(psutil.NoSuchProcess):  # a session may just have ended
                    process.suspend()
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def finished(here: Scene, batch: ChildProcess) -> None:
    """The batch has ended well, and so have the workers."""
    ended(batch, 120)
    for worker in here.workers:
        assert worker.running, words_of(worker)
        assert worker.stop(40) == 0, words_of(worker)
    nothing_went_wrong(here.workers)
