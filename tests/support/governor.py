"""What the tests of the governor share: a small world whose provider enforces limits of its own.

Rates are low on purpose: a busy machine delays calls, and must not change who is let through.
Workers are forked from a process that has imported everything already.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, func, select

from headgate import Client
from headgate.shared.broker.keys import Keys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.settings import Settings
from tests.bench.governor import log
from tests.bench.governor.log import Call
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildProcess, wait_until
from tests.support.command import Ended, headgate
from tests.support.servers import Simulator, ValkeyServer

MODEL, POOL = "gpt-4o-mini", "openai/gpt-4o-mini"
OTHER, OTHER_POOL = "gpt-4o", "openai/gpt-4o"
THIRD, THIRD_POOL = "claude-haiku-4-5", "anthropic/claude-haiku-4-5"
KEYS = Keys()

CLIENTS = ("HOME", "REDIS_URL", "DATABASE_URL", "CATALOG")
"""Settings that lead a client to the servers of the world."""


def limits(pool: str = POOL, **measures: float) -> str:
    """A catalog's lines with these limits of a pool, of a provider that cuts bursts after a second.

    The simulator does so, and its headers tell of the minute, as vendors' may.
    """
    measures = {"burst_s": 1} | measures
    told = "".join(f"{name} = {amount}\n" for name, amount in measures.items())
    return f'[pools."{pool}"]\n{told}'


@dataclass(frozen=True, slots=True)
class Start:
    """The first request for a job, as the ledger has it. Times in Unix ms."""

    job_id: str
    at_ms: int
    submitted_ms: int
    priority: str
    tenant: str
    model: str
    tokens: int


@dataclass
class World:
    """Servers, a provider with limits, workers and a client."""

    folder: Path
    env: dict[str, str]
    valkey: ValkeyServer
    simulator: Simulator
    client: Client
    engine: Engine
    redis: redis.Redis
    workers: list[WorkerProcess] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    # Workers and commands.

    def worker(self, **env: str) -> WorkerProcess:
        """One more worker consumes."""
        name = f"w{len(self.workers)}"
        argv = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "headgate.workers.app",
            "worker",
            "-l",
            "INFO",
        ]
        process = WorkerProcess(
            [*argv, "--hostname", f"{name}@%h"],
            log_path=self.folder / f"worker-{name}.log",
            env=self.env | env,
            lasting=True,
        )
        self.workers.append(process)
        process.start()
        return process

    def warm(self, model: str = OTHER) -> None:
        """Each worker has asked this model's provider once, and the figures there are at 0.

        A first call imports an SDK; what was granted meanwhile would come in a bunch.
        """
        while not all(" succeeded: " in worker.log() for worker in self.workers):
            self.until_ended(self.submit(4 * len(self.workers), model=model))
        self.tell("_reset", {})

    def command(self, *words: str) -> Ended:
        """The command of `headgate` was carried out without a fault."""
        ended = headgate(words, self.env)
        assert ended.code == 0, ended
        return ended

    # Jobs.

    def requests(self, number: int, **fields: Any) -> list[Any]:
        """Requests of one size, no two equal; nothing stands in for their model."""
        shown = {"model": MODEL, "params": {"max_tokens": 5}, "fallback": False, **fields}
        words = shown.pop("prompt", "prompt number")
        return [
            {"prompt": f"{words} {next(self.numbers):06d}", "cache": {"mode": "off"}, **shown}
            for _ in range(number)
        ]

    def first_rank_ms(self, queue: str, pool: str = POOL) -> float:
        """The rank of the first in line."""
        ages = KEYS.waiting_queue(queue, pool, "ages")
        found: Any = self.redis.zrange(ages, 0, 0, withscores=True)
        return float(found[0][1])

    def users(self, ids: Sequence[str]) -> dict[str, str]:
        """The user of each of these jobs."""
        query = select(jobs.c.id, jobs.c.user_id).where(jobs.c.id.in_(ids))
        with reading(self.engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def submit(self, number: int, **fields: Any) -> list[str]:
        """So many jobs are queued; their ids."""
        return self.client.submit_many(self.requests(number, **fields))

    def wait(self, condition: Callable[[], object], what: str, within_s: float = 20) -> None:
        """The condition has been true; else the logs of the workers are told."""
        try:
            wait_until(condition, within_s, what)
        except TimeoutError as error:
            logs = "\n".join(worker.log_end(15) for worker in self.workers)
            raise AssertionError(f"{error}; {self.standing()}\n{logs}") from None

    def standing(self) -> dict[str, Any]:
        """What a reader of a failed test wants to know."""
        stats = self.simulator.stats()
        return {
            "jobs": self.statuses(), "in line": self.in_line(),
            "accepted": stats["accepted"], "refusals": stats["refusals"],
            "faults": stats["faults"],
        }  # fmt: skip

    def in_line(self, pool: str | None = None) -> int:
        """How many jobs stand in the rooms of all pools, or of one."""
        found: Any = self.redis.hgetall(KEYS.waiting_queues())
        return sum(int(n) for room, n in found.items() if pool in (None, room.split(" ")[1]))

    def until_in_line(self, wanted: int, pool: str | None = None) -> None:
        """Exactly so many jobs stand in line."""
        self.wait(lambda: self.in_line(pool) == wanted, f"{wanted} jobs in line")

    def until_deferred(self, job_id: str) -> None:
        """The job waits for a limit or the like, and a worker lives that serves its queue."""
        self.wait(lambda: self.client.status(job_id) == "deferred", f"{job_id} to be deferred")

    def held(self) -> int:
        """How many jobs any worker has in its hands."""
        found: Any = self.redis.zcard(KEYS.leases())
        return int(found)

    def until_ended(self, ids: Sequence[str], within_s: float = 30) -> None:
        """All these jobs have ended."""
        self.wait(lambda: self.ended(ids) == len(ids), f"{len(ids)} jobs to end", within_s)

    # The record.

    def ended(self, ids: Sequence[str]) -> int:
        """How many of these jobs have ended."""
        query = select(func.count()).select_from(audit).where(audit.c.job_id.in_(ids))
        with reading(self.engine) as connection:
            return int(connection.scalar(query) or 0)

    def statuses(self, ids: Sequence[str] | None = None) -> dict[str, int]:
        """How many jobs have which status on record."""
        query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
        if ids is not None:
            query = query.where(jobs.c.id.in_(ids))
        with reading(self.engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def starts(self) -> list[Start]:
        """First requests of jobs, in their order."""
        query = (
            select(
                jobs.c.id, attempts.c.started_at_ms, jobs.c.submitted_at_ms, jobs.c.priority,
                jobs.c.tenant, attempts.c.model,
                attempts.c.input_tokens + attempts.c.output_tokens,
            )
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(attempts.c.n == 1)
            .order_by(attempts.c.started_at_ms, jobs.c.id)
        )  # fmt: skip
        with reading(self.engine) as connection:
            return [Start(*row) for row in connection.execute(query)]

    def ids(self) -> list[str]:
        """The ids of all jobs on record."""
        with reading(self.engine) as connection:
            return list(connection.scalars(select(jobs.c.id)))

    def spans(self, ids: Sequence[str]) -> list[tuple[int, int]]:
        """Beginning and end of each request for these jobs, in Unix ms."""
        columns = (attempts.c.started_at_ms, attempts.c.settled_at_ms)
        query = select(*columns).where(attempts.c.job_id.in_(ids))
        with reading(self.engine) as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    # The provider.

    def calls(self) -> list[Call]:
        """All requests that the provider has met, by the moment in which each arrived."""
        return log.read(self.simulator.log_path)

    def tell(self, address: str, document: object) -> None:
        """The provider has been told at one of its own addresses: `_limits`, `_script`."""
        body = json.dumps(document).encode()
        url = f"{self.simulator.url}/{address}"
        urllib.request.urlopen(url, data=body, timeout=5).close()  # noqa: S310 (loopback)

    def fails(self, fault: str, times: int | None = None, match: str = "") -> None:
        """The next requests with these words, so many of them, meet this fault."""
        rule = {"match": match, "fault": fault}
        self.tell("_script", [rule if times is None else {**rule, "times": times}])

    def works(self) -> None:
        """Nothing goes wrong at the provider any more."""
        self.tell("_script", [])

    def accepted(self) -> int:
        """How many requests the provider has let through."""
        return int(self.simulator.stats()["accepted"])

    def until_accepted(self, wanted: int, within_s: float = 40) -> None:
        """The provider has let through so many."""
        self.wait(lambda: self.accepted() >= wanted, f"{wanted} calls", within_s)


Open = Callable[..., World]


@pytest.fixture
def world(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> Iterator[Open]:
    """A function that opens a world: flags of the provider, workers, a catalog, settings."""
    with ExitStack() as stack:

        def start(
            *flags: str,
            workers: int = 1,
            catalog: str = "",
            server: ValkeyServer = valkey,
            keys: dict[str, str] | None = None,
            **settings: object,
        ) -> World:
            simulator = Simulator(tmp_path / "simulator", ["--json-log", "--burst-s", "1", *flags])
            stack.callback(simulator.kill)
            simulator.start()
            (tmp_path / "catalog.toml").write_text(catalog)
            env = {
                "HEADGATE_HOME": str(tmp_path / "home"),
                "HEADGATE_REDIS_URL": server.url,
                "HEADGATE_DATABASE_URL": sqlite_url,
                "HEADGATE_CATALOG": str(tmp_path / "catalog.toml"),
                "HEADGATE_SIMULATOR_URL": simulator.url,
                "HEADGATE_LEASE_S": "10",  # a worker that stands still for seconds keeps its jobs
                "HEADGATE_SWEEP_S": "1",
                "HEADGATE_DRAIN_S": "0",
                **{f"HEADGATE_{name.upper()}": str(value) for name, value in settings.items()},
                **(keys or {}),
            }
            engine = open_engine(sqlite_url)
            stack.callback(engine.dispose)
            migrate.upgrade(engine)
            chosen: dict[str, Any] = {n.lower(): env[f"HEADGATE_{n}"] for n in CLIENTS}
            client = Client(Settings(**chosen))
            stack.callback(client.close)
            opened = server.client()
            stack.callback(opened.close)
            made = World(
                tmp_path, env, server, simulator, client, engine, opened
            )  # fmt: skip
            stack.callback(_end, made.workers)
            for _ in range(workers):
                made.worker()
            return made

        yield start


def _end(workers: Sequence[ChildProcess]) -> None:
    for worker in workers:
        worker.kill()
