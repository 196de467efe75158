"""What the benches share: a clean set of servers, processes that are measured, jobs to drain."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from time import process_time
from typing import Any, Literal

import psutil
import redis
from sqlalchemy import func, select

from headgate import Client
from headgate.shared import settings
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import audit
from headgate.shared.settings import Settings
from tests import ROOT
from tests.bench.load_provider import LoadProvider
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import PostgresServer, Simulator, ValkeyServer, short_folder

Database = Literal["sqlite", "postgresql"]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one drain: jobs per second, and MB of all workers.

    The others are CPU-ms per job: of all workers, of Valkey, of the provider, of the producer.
    """

    rate: float
    cpu_ms: float
    rss_mb: float
    redis_ms: float = 0.0
    provider_ms: float = 0.0
    producer_ms: float = 0.0

    def beside(self) -> str:
        """The CPU-ms per job of those beside the asking process, or a dash."""
        others = (self.redis_ms, self.provider_ms, self.producer_ms)
        return " / ".join(f"{one:.2f}" for one in others) if any(others) else "-"


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU seconds that each side has used so far."""

    workers: float
    redis: float
    provider: float
    producer: float


def _cpu_s(pid: int) -> float:
    return sum(psutil.Process(pid).cpu_times()[:2])


@dataclass
class Rig:
    """A Valkey with its file on disk, a record, and optionally a provider.

    `simulator`: the simulated provider, if the provider is that one.
    """

    folder: Path
    valkey: ValkeyServer
    database_url: str
    provider: Simulator | LoadProvider | None
    concurrency: int
    stack: ExitStack
    catalog: Path | None = None
    further: dict[str, str] = field(default_factory=dict)
    workers: list[psutil.Process] = field(default_factory=list)
    children: list[ChildProcess] = field(default_factory=list)
    rounds: Iterator[int] = field(default_factory=count)

    @property
    def simulator(self) -> Simulator:
        """The simulated provider; an error where the provider is another."""
        assert isinstance(self.provider, Simulator)
        return self.provider

    @property
    def provider_url(self) -> str:
        """The base address of the provider."""
        assert self.provider is not None
        return self.provider.url

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every process of this rig."""
        own = {
            "HEADGATE_HOME": str(self.folder / "home"),
            "HEADGATE_REDIS_URL": self.valkey.url,
            "HEADGATE_DATABASE_URL": self.database_url,
            "HEADGATE_CONCURRENCY": str(self.concurrency),
            "PYTHONPATH": str(ROOT),
        }
        if self.provider is not None:
            own["HEADGATE_SIMULATOR_URL"] = self.provider_url
        if self.catalog is not None:
            own["HEADGATE_CATALOG"] = str(self.catalog)
        own |= self.further
        inherited = {k: v for k, v in settings.environment().items() if not k.startswith("HEAD")}
        return inherited | own

    @property
    def settings(self) -> Settings:
        """What a producer in this process needs."""
        home = self.folder / "home"
        return Settings(
            redis_url=self.valkey.url,
            database_url=self.database_url,
            home=home,
            catalog=self.catalog,
        )

    def client(self) -> redis.Redis:
        """A client of the rig's Valkey."""
        return self.valkey.client(decode_responses=False)

    def start_worker(self, app: str = "headgate.workers.app") -> psutil.Process:
        """A worker process of this app, ready for jobs."""
        name = f"bench{next(self.rounds)}"
        argv = [sys.executable, "-m", "celery", "-q", "-A", app, "worker"]
        argv += ["--loglevel", "WARNING", "-n", f"{name}@%h"]
        log = self.folder / f"{name}.log"
        child = ChildProcess(argv, log_path=log, env=self.variables, cwd=ROOT)
        child.start()
        self.stack.callback(child.kill)
        with self.client() as client:
            there = lambda: any(client.scan_iter(f"headgate:worker:{name}@*"))  # noqa: E731
            wait_until(there, 30, "the worker is ready")
        process = psutil.Process(child.pid)
        self.workers.append(process)
        self.children.append(child)
        return process

    def stop_workers(self) -> None:
        """No worker runs."""
        for child in self.children:
            child.stop(60)
        self.workers.clear()
        self.children.clear()

    def warm_up(self, client: Client, **fields: Any) -> None:
        """Every worker has answered jobs: SDKs are imported, connections open; none is left."""
        for _ in range(2):
            before, wanted = self.ended(), 200 * len(self.workers)
            client.submit_many(self.requests(wanted, **fields))
            wait_until(lambda: self.ended() - before >= wanted, 120, "the workers are warm")  # noqa: B023
        time.sleep(1)

    def requests(self, jobs: int, **fields: Any) -> list[Any]:
        """Unique prompts of some 80 tokens, 50 tokens of answer, for a model that is named."""
        mark = f"{next(self.rounds)} of {self.folder.name}"
        own = {"model": "gpt-4o-mini", "params": {"max_tokens": 50}}
        return [{"prompt": f"{n} in {mark} " + "x" * 300, **own, **fields} for n in range(jobs)]

    def ended(self) -> int:
        """How many jobs have ended."""
        engine = open_engine(self.database_url)
        try:
            with reading(engine) as connection:
                return int(connection.scalar(select(func.count()).select_from(audit)) or 0)
        finally:
            engine.dispose()

    def drain(self, client: Client, jobs: int, **fields: Any) -> Figures:
        """From the first submission to the end of the last job."""
        requests = self.requests(jobs, **fields)
        before, began, cpu_s = self.ended(), stopwatch(), self.spent()
        client.submit_many(requests)
        producer_s = process_time() - cpu_s.producer
        wait_until(lambda: self.ended() - before == jobs, 300, "all jobs have ended")
        took, now_s = stopwatch() - began, self.spent()
        return Figures(
            jobs / took,
            (now_s.workers - cpu_s.workers) / jobs * 1000,
            self.rss_mb(),
            (now_s.redis - cpu_s.redis) / jobs * 1000,
            (now_s.provider - cpu_s.provider) / jobs * 1000,
            producer_s / jobs * 1000,
        )

    def spent(self) -> CpuSeconds:
        """The CPU seconds of each side so far."""
        provider_s = _cpu_s(self.provider.pid) if self.provider is not None else 0.0
        return CpuSeconds(self.cpu_s(), _cpu_s(self.valkey.pid), provider_s, process_time())

    def cpu_s(self) -> float:
        """CPU seconds that the workers have used so far."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers)

    def rss_mb(self) -> float:
        """Memory of all workers together."""
        return sum(worker.memory_info().rss for worker in self.workers) / 1e6


@contextmanager
def rig(
    *,
    latency_ms: float | None = None,
    database: Database = "sqlite",
    concurrency: int = 500,
    simulator_flags: Sequence[str] = (),
    load_provider: bool = False,
    gap_ms: float = 20,
    catalog: str = "",
    further: Mapping[str, str] | None = None,
) -> Iterator[Rig]:
    """A rig; all that was started in it is stopped afterwards.

    `load_provider`: a provider that costs next to nothing stands in for the simulated one, with
    `gap_ms` between the pieces of a stream.
    `catalog`: TOML laid over the built-in one. `further`: more of the environment.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        valkey = stack.enter_context(ValkeyServer(folder / "valkey", appendonly=True))
        provider: Simulator | LoadProvider | None = None
        if latency_ms is not None and load_provider:
            provider = stack.enter_context(LoadProvider(folder / "provider", latency_ms, gap_ms))
        elif latency_ms is not None:
            flags = ["--latency-ms", str(latency_ms), *simulator_flags]
            provider = stack.enter_context(Simulator(folder / "simulator", flags))
        (folder / "home").mkdir()
        url = f"sqlite:///{folder / 'home' / 'headgate.db'}"
        if database == "postgresql":
            url = stack.enter_context(durable_postgres(folder / "postgres"))
        engine = open_engine(url)
        migrate.upgrade(engine)
        engine.dispose()
        overlay = folder / "catalog.toml" if catalog else None
        if overlay is not None:
            overlay.write_text(catalog)
        yield Rig(
            folder, valkey, url, provider, concurrency, stack, overlay, dict(further or {})
        )  # fmt: skip


@contextmanager
def durable_postgres(folder: Path) -> Iterator[str]:
    """The URL of an empty database on a server that writes to disk as in production."""
    server = PostgresServer(folder)
    server.argv += ["-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on"]
    with server, server.database() as url:
        yield url


def median_of(figures: Sequence[Figures]) -> Figures:
    """The median of each figure."""

    def of(pick: Callable[[Figures], float]) -> float:
        return statistics.median(pick(one) for one in figures)

    return Figures(
        of(lambda f: f.rate), of(lambda f: f.cpu_ms), of(lambda f: f.rss_mb),
        of(lambda f: f.redis_ms), of(lambda f: f.provider_ms), of(lambda f: f.producer_ms),
    )  # fmt: skip


def run_child(rig: Rig, module: str, *arguments: str) -> str:
    """What a child process printed; it runs with the rig's environment."""
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        argv, env=rig.variables, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300
    ).stdout


def stopwatch() -> float:
    """Seconds on a clock that only goes forward."""
    return time.perf_counter()
