"""The stage of a soak: its servers, its workers, its producers, and a clock that tends them all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis
from sqlalchemy import Engine

from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine
from tests import ROOT
from tests.soak.batches import SERVER_AWAY, Batches
from tests.soak.flood import BEGUN
from tests.soak.watch import Watch
from tests.support.child import ChildProcess
from tests.support.installation import database_url, worker_process
from tests.support.servers import PostgresServer, Simulator, ValkeyServer, short_folder

FAULTS = "429:retry-after=1=0.01,500=0.01,503=0.005,cut=0.002,slow:ms=2000=0.005"
IN_FLIGHT, LEASE_S, TICK_S = 150, 8, 0.25
MORTAL = "mortal"


@dataclass(slots=True)
class Stage:
    """All that runs. `mortal` is the worker that is killed, `steady` the one that never is."""

    folder: Path
    env: dict[str, str]
    engine: Engine
    simulator: Simulator
    valkey: ValkeyServer
    postgres: PostgresServer | None
    steady: ChildProcess
    mortal: ChildProcess
    flood: ChildProcess
    canary: ChildProcess
    batches: Batches
    watch: Watch
    keys: Keys = field(default_factory=Keys)
    supervised: bool = True
    faults: list[str] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        """The ids that the flood was promised."""
        return self.folder / "flood.ids"

    @property
    def canary_journal(self) -> Path:
        """The ids of the canary, each with the ms it took."""
        return self.folder / "canary.ids"

    def redis(self) -> redis.Redis:
        """A client of the Valkey, for one look."""
        return self.valkey.client()

    def steady_lives(self) -> bool:
        """Whether the steady worker fetches jobs."""
        with self.redis() as client:
            return any(client.scan_iter(match=self.keys.worker("steady@*"), count=1000))

    def live(self, seconds: float) -> None:
        """That much time has passed, with everything tended meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.supervise()
            self.batches.tend()
            self.watch.look(self)
            time.sleep(min(TICK_S, left))

    def supervise(self) -> None:
        """The mortal worker runs, unless it is being killed; as systemd would see to it.

        A worker that finds a server away when it starts says so and ends with 3.
        """
        if self.supervised and not self.mortal.running:
            if self.mortal.exit_code() != SERVER_AWAY:
                self.faults.append(f"a worker ended by itself with {self.mortal.exit_code()}")
            self.mortal.start()

    @property
    def logs(self) -> list[Path]:
        """What workers and producers have written."""
        return [one.log_path for one in (self.steady, self.mortal, self.flood, self.canary)]


@contextmanager
def stage(database: str, *, batch_lines: int, result_ttl_s: int) -> Iterator[Stage]:
    """A stage in full swing; all that was started on it is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        flags = ["--latency-ms", "100", "--latency-sigma", "0.5", "--fail", FAULTS]
        simulator = Simulator(folder / "simulator", flags)
        # Each write is on disk before its answer, so that a kill loses nothing of the broker.
        always = ("--appendfsync", "always")
        valkey = ValkeyServer(folder / "valkey", appendonly=True, extra=always)
        for server in (simulator, valkey):
            stack.callback(server.kill)
            server.start()
        env = {
            "PYTHONPATH": str(ROOT),
            "HEADGATE_HOME": str(folder / "home"),
            "HEADGATE_REDIS_URL": valkey.url,
            "HEADGATE_SIMULATOR_URL": simulator.url,
            "HEADGATE_CONCURRENCY": str(IN_FLIGHT),
            "HEADGATE_LEASE_S": str(LEASE_S),
            "HEADGATE_SWEEP_S": "2",
            "HEADGATE_BACKOFF_S": "0.5",
            # One model, whose faults are counted: a breaker would send jobs to others.
            "HEADGATE_MODEL": "gpt-4o-mini",
            "HEADGATE_BREAKER_FAILURES": "0",
            "HEADGATE_RESULT_TTL_S": str(result_ttl_s),
            "HEADGATE_CACHE_TTL_S": "10",
        }
        postgres = None
        if database == "postgresql":
            postgres = _postgres(folder, stack)
            env["HEADGATE_DATABASE_URL"] = postgres.url("soak")
        else:
            (folder / "home").mkdir()
        engine = open_engine(database_url(env))
        stack.callback(engine.dispose)
        _migrate(engine)
        made = Stage(
            folder, env, engine, simulator, valkey, postgres,
            steady=worker_process(env, folder, "steady", level="WARNING"),
            mortal=worker_process(env, folder, MORTAL, level="WARNING"),
            flood=_producer(folder, env, "flood", folder / "flood.ids", str(10 * IN_FLIGHT)),
            canary=_producer(folder, env, "canary", folder / "canary.ids"),
            batches=Batches(folder, env, batch_lines),
            watch=Watch(),
        )  # fmt: skip
        _plain(made.steady)
        _plain(made.mortal)
        try:
            for child in (made.steady, made.mortal, made.flood, made.canary):
                child.start()
            yield made
        finally:
            for child in (made.steady, made.mortal, made.flood, made.canary):
                child.kill()
            if made.batches.process is not None:
                made.batches.process.kill()


def _plain(child: ChildProcess) -> None:
    """The worker counts as started at once: at this log level it does not say that it is ready."""
    child.ready = lambda: True  # type: ignore[method-assign]


class Producer(ChildProcess):
    """A producer that is ready when it obeys SIGTERM: its log says so at each start."""

    starts = 0

    def ready(self) -> bool:
        """Whether it has begun since the last start."""
        return self.log().count(BEGUN) >= self.starts

    def start(self, timeout_s: float = 30) -> Producer:
        """It produces."""
        self.starts = self.log().count(BEGUN) + 1
        return super().start(timeout_s)


def _producer(folder: Path, env: dict[str, str], kind: str, *words: Path | str) -> Producer:
    argv = [sys.executable, "-m", "tests.soak.flood", kind, *words]
    return Producer(argv, log_path=folder / f"{kind}.log", env=env)


def _postgres(folder: Path, stack: ExitStack) -> PostgresServer:
    server = PostgresServer(folder / "postgres")
    # A commit that was answered must outlive the process; only the machine never dies here.
    server.argv += ["-c", "synchronous_commit=on", "-c", "full_page_writes=on"]
    stack.callback(server.kill)
    server.start()
    server._run("CREATE DATABASE soak")
    return server


def _migrate(engine: Engine) -> None:
    from headgate.shared.database import migrate

    migrate.upgrade(engine)
