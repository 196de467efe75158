"""What the benches share: a clean set of servers, processes that are measured, a line of output."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis

from shared import settings
from tests.child import ChildProcess, wait_until
from tests.servers import Simulator, ValkeyServer, short_folder

ROOT = Path(__file__).parents[2]


@dataclass
class Rig:
    """A Valkey with its file on disk, a folder, and optionally a simulated provider."""

    folder: Path
    valkey: ValkeyServer
    simulator_url: str | None
    stack: ExitStack
    workers: list[psutil.Process] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every process of this rig."""
        own = {
            "HEADGATE_HOME": str(self.folder / "home"),
            "HEADGATE_REDIS_URL": self.valkey.url,
            "PYTHONPATH": str(ROOT),
        }
        if self.simulator_url:
            own["HEADGATE_SIMULATOR_URL"] = self.simulator_url
        inherited = {k: v for k, v in settings.environment().items() if not k.startswith("HEAD")}
        return inherited | own

    def client(self) -> redis.Redis:
        """A client of the rig's Valkey."""
        return self.valkey.client(decode_responses=False)

    def start_worker(self, app: str, number: int = 0) -> psutil.Process:
        """A worker process of this app, ready for jobs."""
        argv = [sys.executable, "-m", "celery", "-q", "-A", app, "worker"]
        argv += ["--loglevel", "WARNING", "-n", f"bench{number}@%h"]
        child = ChildProcess(
            argv, log_path=self.folder / f"worker{number}.log", env=self.variables, cwd=ROOT
        )
        child.start()
        self.stack.callback(child.stop)
        client = self.client()
        wait_until(
            lambda: len(list(client.scan_iter("headgate:worker:*"))) > number,
            30,
            "the worker is ready",
        )
        client.close()
        process = psutil.Process(child.pid)
        self.workers.append(process)
        return process

    def cpu_s(self) -> float:
        """CPU seconds that the workers have used so far."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers)

    def rss_mb(self) -> float:
        """Memory of all workers together."""
        return sum(worker.memory_info().rss for worker in self.workers) / 1e6


@contextmanager
def rig(*, latency_ms: float | None = None) -> Iterator[Rig]:
    """A rig; all that was started in it is stopped afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        valkey = stack.enter_context(ValkeyServer(folder / "valkey", appendonly=True))
        url = None
        if latency_ms is not None:
            flags = ["--latency-ms", str(latency_ms)]
            url = stack.enter_context(Simulator(folder / "simulator", flags)).url
        yield Rig(folder, valkey, url, stack)


def run_child(rig: Rig, module: str, *arguments: str) -> str:
    """What a child process printed; it runs with the rig's environment."""
    argv = [sys.executable, "-m", module, *arguments]
    return subprocess.run(
        argv, env=rig.variables, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300
    ).stdout


def line(text: str) -> None:
    """One line of figures."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def stopwatch() -> float:
    """Seconds on a clock that only goes forward."""
    return time.perf_counter()
