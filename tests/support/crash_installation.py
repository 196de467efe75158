"""One installation whose workers obey orders (crash.py), and whose books are checked."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine, func, select, text, update

from headgate.producer.submit.enqueue import enqueue
from headgate.producer.submit.prepare import Submitter
from headgate.shared.catalog import catalog
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading, writing
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildFailed, ChildProcess, wait_until
from tests.support.installation import PICO
from tests.support.rig import Broker
from tests.support.servers import Simulator, ValkeyServer

CATALOG = """
[pools."openai/gpt-4o"]
rpm = 12
burst_s = 20
[pools."anthropic/claude-haiku-4-5"]
output_tpm = 600000
"""
"""Four of gpt-4o at once, the others are deferred; tokens of claude-haiku-4-5 are given back."""

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "retried": {"prompt": "[[fault:once:500]]"},
    "put off": {"prompt": "[[fault:once:429:retry-after=3]]"},
    "put off for long": {"prompt": "[[fault:once:529:retry-after=600]]"},
    "replaced": {"prompt": "[[fault:500:model=gpt-4o-mini]]", "fallback": ["claude-haiku-4-5"]},
    "limited": {"model": "gpt-4o"},
    "adjusted": {"model": "claude-haiku-4-5"},
    "cached": {"prompt": "again and again"},
    "slow": {"prompt": "[[fault:once:slow:ms=300000]]"},
    "slow once": {"prompt": "[[fault:once:slow:ms=4000]]"},
}
MIXED = Counter(
    {
        "plain": 14,
        "limited": 6,
        "retried": 6,
        "replaced": 4,
        "adjusted": 4,
        "cached": 4,
        "put off": 2,
    }
)
AT_ONCE = MIXED.total()

UNDER_WAY = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND state <> 'idle'"
)
"""Transactions of others. The server still carries out a commit whose sender has been killed."""


class Line:
    """Servers, a provider, and the workers of the test."""

    def __init__(self, folder: Path, valkey: ValkeyServer, database_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.database_url = folder, database_url
        self.simulator = Simulator(folder / "simulator", ["--latency-ms", "80"], lasting=True)
        self.simulator.start()
        (folder / "catalog.toml").write_text(CATALOG)
        self.settings = Settings(redis_url=valkey.url, database_url=database_url, home=folder)
        self.servers = Servers(self.settings, valkey.url, database_url)
        self.engine: Engine = open_engine(database_url)
        migrate.upgrade(self.engine)
        self.client: redis.Redis = self.servers.redis_client()
        self.broker = Broker(self.client)
        self.submitter = Submitter(self.settings, catalog.load(folder / "catalog.toml"))
        self.workers: list[WorkerProcess] = []
        self.count = 0

    def env(self, name: str) -> dict[str, str]:
        """What the worker of this name is told."""
        return {
            "HEADGATE_HOME": str(self.folder),
            "HEADGATE_REDIS_URL": self.settings.redis_url or "",
            "HEADGATE_DATABASE_URL": self.database_url,
            "HEADGATE_SIMULATOR_URL": self.simulator.url,
            "HEADGATE_CATALOG": str(self.folder / "catalog.toml"),
            "HEADGATE_CONCURRENCY": str(AT_ONCE),
            "HEADGATE_LEASE_S": "10",
            "HEADGATE_DRAIN_S": "0",
            "HEADGATE_MAX_DELIVERIES": "100",
            "HEADGATE_MAX_ATTEMPTS": "3",
            "HEADGATE_BACKOFF_S": "0.02",
            # Its jobs fail far more often than any breaker, or a tenth of the traffic, would bear.
            "HEADGATE_BREAKER_FAILURES": "0",
            "HEADGATE_RETRY_SHARE": "10",
            "CRASH_ORDERS": str(self.folder / f"orders-{name}"),
        }

    # Workers and what they are told.

    def worker(self, name: str = "one", **env: str) -> WorkerProcess:
        """A worker that consumes, or has killed itself by now; it outlives the test."""
        argv = [sys.executable, "-m", "celery", "-A", "tests.support.crash", "worker", "-l", "INFO"]
        process = WorkerProcess(
            [*argv, "--hostname", f"{name}@%h"],
            log_path=self.folder / f"worker-{name}.log",
            env=self.env(name) | env,
            lasting=True,
        )
        self.workers.append(process)
        try:
            return process.start()
        except ChildFailed:
            if process.exit_code() != -signal.SIGKILL:
                raise
            return process

    def producer(self, count: int, *key: str) -> ChildProcess:
        """A producer of so many plain jobs, which obeys the orders for `producer`."""
        argv = [sys.executable, "-m", "tests.support.crash", str(count), *key]
        env = self.env("producer")
        child = ChildProcess(argv, log_path=self.folder / "producer.log", env=env)
        child.may_end = True
        return child.start()

    def order(self, order: str, name: str = "one") -> None:
        """The worker of this name does as the order says (crash.py); "" is no order."""
        new = self.folder / "order.new"
        new.write_text(order)
        new.rename(self.folder / f"orders-{name}")

    def dies(self, worker: ChildProcess) -> int:
        """The process has killed itself; returns how many attempts it left open."""
        wait_until(lambda: not worker.running, 30, f"the kill; its log:\n{worker.log_end()}")
        assert worker.exit_code() == -signal.SIGKILL, worker.log_end()
        worker.kill()
        if self.engine.dialect.name == "postgresql":
            wait_until(lambda: not self._scalar(UNDER_WAY), 20, "its last commit")
        return self.count_attempts("open")

    def lapse(self, name: str = "one") -> None:
        """All that the dead worker of this name held has run out; its jobs are in their queues."""
        self.client.delete(self.broker.keys.sweeper())
        while ids := self._leased_by(name):
            self.broker.settle_down()
            self.broker.lapse(*ids)
            self.broker.fetch(0, queues=())

    def _leased_by(self, name: str) -> list[str]:
        owners = self.broker.leased().items()
        return [job_id for job_id, owner in owners if owner.startswith(f"{name}@")]

    def let_leases_end(self) -> None:
        """All leases have run out, and nobody has noticed yet."""
        marks = self.broker.keys.leases()
        ends: Any = self.client.zrange(marks, -1, -1, withscores=True)
        assert ends, "no job is under way: the workers ended all before they were frozen"
        wait_until(lambda: self.broker.now_ms() > ends[0][1], 10, "leases to run out")

    def has_been_renewed(self) -> bool:
        """Whether every lease that there is has time left."""
        return not self.client.zcount(self.broker.keys.leases(), "-inf", self.broker.now_ms())

    # Jobs.

    def requests(self, kinds: Mapping[str, int]) -> list[dict[str, Any]]:
        """So many requests of each kind, all of one length and, for one model, of one price."""
        made = []
        for kind in Counter(kinds).elements():
            self.count += 1
            fields = {"model": "gpt-4o-mini", "params": {"max_tokens": 5}, **KINDS[kind]}
            unique = "" if kind == "cached" else f" number {self.count:06d}"
            fields["prompt"] = f"{KINDS[kind].get('prompt', '')}{unique}".rjust(64, ".")
            made.append(fields)
        return made

    def submit(self, kinds: Mapping[str, int], **fields: Any) -> list[str]:
        """Jobs of these kinds, all with these fields, are queued; their ids."""
        requests = [{**request, **fields} for request in self.requests(kinds)]
        prepared = list(self.submitter.prepare_many(requests))
        enqueue(self.engine, self.client, self.broker.keys, prepared)
        return [job.envelope.id for job in prepared]

    def ids(self) -> list[str]:
        """The ids of all jobs on record."""
        with reading(self.engine) as connection:
            return list(connection.scalars(select(jobs.c.id)))

    def forget(self) -> None:
        """The server has lost all that it knew of queued jobs."""
        self.client.delete(*self.client.scan_iter("headgate.*"), self.broker.keys.present())

    def hasten(self) -> None:
        """What waits for its time or for a bucket need not wait any longer."""
        for key in self.client.scan_iter("headgate:bucket:*"):
            self.client.delete(key)
        if self.broker.due():
            with writing(self.engine) as connection:
                deferred = update(jobs).where(jobs.c.status == "deferred")
                connection.execute(deferred.values(retry_at_ms=0))
            self.broker.make_due()

    def wait_until_ended(
        self, ids: list[str], within_s: float = 40, *, hasten: bool = True
    ) -> None:
        """All these jobs have ended, and the broker knows none of them."""

        def ended() -> bool:
            if hasten:
                self.hasten()
            return not self.broker.present() and self._ended(ids) == len(ids)

        try:
            wait_until(ended, within_s, "all jobs to end")
        except TimeoutError as error:
            log = "\n".join(worker.log_end(20) for worker in self.workers[-2:])
            told = f"{self.statuses(ids)}, {self.broker.leased()}, {self.broker.due()}"
            raise AssertionError(f"{error}: {told}; logs:\n{log}") from None

    def _ended(self, ids: list[str]) -> int:
        return self._scalar(select(func.count()).where(audit.c.job_id.in_(ids)))

    # The books.

    def _scalar(self, query: Any) -> int:
        with reading(self.engine) as connection:
            return int(connection.scalar(query) or 0)

    def count_attempts(self, state: str) -> int:
        """How many attempts of all jobs are in this state."""
        return self._scalar(select(func.count()).where(attempts.c.state == state))

    def count_crashed(self) -> int:
        """How many attempts nobody knows the end of; of others it was a fault of the provider."""
        crashed = (attempts.c.state == "unknown") & attempts.c.code.is_(None)
        return self._scalar(select(func.count()).where(crashed))

    def statuses(self, ids: list[str]) -> dict[str, int]:
        """How many of the jobs have which status."""
        query = select(jobs.c.status, func.count()).where(jobs.c.id.in_(ids))
        with reading(self.engine) as connection:
            return {row[0]: row[1] for row in connection.execute(query.group_by(jobs.c.status))}

    def each_ended_once(self, ids: list[str]) -> None:
        """Every job succeeded, has its result where all look for it, and left nothing behind."""
        assert self.statuses(ids) == {"succeeded": len(ids)}
        assert self._ended(ids) == len(ids)
        records = self.client.mget([self.broker.keys.result(job_id) for job_id in ids])
        assert all(record and json.loads(record)["status"] == "SUCCESS" for record in records)
        assert self.broker.is_empty()
        assert self.broker.leased() == {}
        assert self.broker.crashes() == {}

    def the_books_agree(self) -> None:
        """The ledger is the provider's bill; only unknown attempts may be billed beyond it."""
        stats = self.simulator.stats()
        assert self.count_attempts("open") == 0
        columns = (attempts.c.model, attempts.c.state, attempts.c.cost_pico_usd)
        with reading(self.engine) as connection:
            rows = connection.execute(select(*columns, func.count()).group_by(*columns)).all()
            sums = select(func.sum(audit.c.cost_pico_usd), func.sum(audit.c.unknown_attempts))
            audited = connection.execute(sums).one()
        for model, billed_usd in stats["money"]["by_model_usd"].items():
            [(cost, answered)] = [(r[2], r[3]) for r in rows if r[:2] == (model, "answered")]
            unknown = sum(r[3] for r in rows if r[:2] == (model, "unknown"))
            billed = Decimal(billed_usd) / (cost * PICO)
            assert answered <= billed <= answered + unknown, (model, answered, billed, unknown)
        assert audited[0] == sum(r[2] * r[3] for r in rows if r[1] == "answered")
        assert audited[1] == self.count_attempts("unknown")

    def end_workers(self) -> None:
        """No worker runs any more, and none of their orders stands."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()
        for name in ("one", "two"):
            self.order("", name)
            self.lapse(name)

    def close(self) -> None:
        """Nothing of it runs any more."""
        for worker in self.workers:
            worker.kill()
        self.simulator.kill()
        self.client.close()
        self.engine.dispose()


@contextmanager
def open_line(folder: Path, valkey: ValkeyServer, database_url: str) -> Iterator[Line]:
    """A line without workers; closed afterwards."""
    line = Line(folder, valkey, database_url)
    try:
        yield line
    finally:
        line.close()
