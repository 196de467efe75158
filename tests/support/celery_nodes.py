"""pytest-celery without Docker: its nodes are local processes.

The plugin asks of a "container" only what is below (duck typing, read in pytest_celery/api); with
its three cluster fixtures replaced, nothing of it ever looks for Docker. A test overrides
`celery_worker_argv` or `celery_worker_env` to choose what worker runs, and takes the plugin's
`celery_setup`, or the clusters themselves, to use it.
"""

import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import celery
import pytest
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBackend,
    RedisTestBroker,
)

from tests.support.child import ChildProcess, wait_until
from tests.support.servers import ValkeyServer


class LocalNode:
    """A child process in the shape of pytest-celery's container."""

    def __init__(self, child: ChildProcess, name: str, url: str = "") -> None:
        """Wrap a child, started or not; `url` is where Celery connects to a broker or backend."""
        self.child = child
        self.name = name
        self.url = url

    @property
    def id(self) -> str:
        """The host name, of which the plugin takes 12 characters as Celery's node name does."""
        return socket.gethostname()

    @property
    def celeryconfig(self) -> dict[str, str]:
        """The address as the worker and as the test see it: the same here."""
        return {"url": self.url, "host_url": self.url, "vhost": "0"}

    @property
    def status(self) -> str:
        """Docker's word for whether it runs."""
        return "running" if self.child.running else "exited"

    def ready(self) -> bool:
        """The process can be used; raises TimeoutError after 30 s."""
        wait_until(self.child.ready, 30, f"{self.name} to be ready, see {self.child.log_path}")
        return True

    def logs(self) -> str:
        """All output so far, over all starts."""
        return self.child.log()

    def kill(self, signal: "str | int" = "SIGKILL") -> None:
        """The process has been sent the signal and has ended, as `docker kill` is used in tests."""
        self.child.signal(_number(signal))
        wait_until(lambda: not self.child.running, 30, f"{self.name} to end")
        self.child.kill()

    def restart(self, timeout: float = 30) -> None:
        """A new process runs in the place of the old one."""
        self.child.restart(timeout)

    def reload(self) -> None:
        """Nothing to do: `status` is always fresh."""

    def teardown(self) -> None:
        """The process is gone."""
        self.child.kill()


class LocalWorker(LocalNode):
    """A Celery worker process in the shape of pytest-celery's worker container."""

    def version(self) -> str:
        """Celery's version."""
        return str(celery.__version__)

    def log_level(self) -> str:
        """The level that `celery_worker_argv` asks for."""
        return "INFO"

    def worker_name(self) -> str:
        """The part of the node name before the @."""
        return self.name

    def worker_queue(self) -> str:
        """Celery's default queue, which the plugin's ping task uses."""
        return "celery"


class WorkerProcess(ChildProcess):
    """A worker that is ready when its log says so once more than before the start."""

    stop_signal = signal.SIGTERM
    forks = True

    def ready(self) -> bool:
        """Whether Celery has logged `<node> ready.` since the last start."""
        return self.log().count(" ready.") >= self.starts

    starts = 0

    def start(self, timeout_s: float = 60) -> "WorkerProcess":
        """The worker consumes."""
        self.starts = self.log().count(" ready.") + 1
        return super().start(timeout_s)


def _number(name: "str | int") -> signal.Signals:
    return signal.Signals[name] if isinstance(name, str) else signal.Signals(name)


@pytest.fixture
def celery_valkey(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    """The Valkey that is broker and backend of this test: its own, on disk, so it may be killed."""
    return valkey_factory(appendonly=True)


@pytest.fixture
def celery_broker_cluster(celery_valkey: ValkeyServer) -> CeleryBrokerCluster:
    """The plugin's broker: this test's Valkey."""
    container: Any = LocalNode(celery_valkey, "broker", celery_valkey.url)
    return CeleryBrokerCluster(RedisTestBroker(container))


@pytest.fixture
def celery_backend_cluster(celery_valkey: ValkeyServer) -> Iterator[CeleryBackendCluster]:
    """The plugin's result backend: the same Valkey."""
    container: Any = LocalNode(celery_valkey, "backend", celery_valkey.url)
    backend = RedisTestBackend(container)
    yield CeleryBackendCluster(backend)
    backend.teardown()


@pytest.fixture
def celery_worker_argv() -> Sequence[str]:
    """The worker's command without the node name; override it for another app or pool."""
    return [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "headgate.workers.app",
        "worker",
        "--loglevel=INFO",
    ]


@pytest.fixture
def celery_worker_env(celery_valkey: ValkeyServer, tmp_path: Path) -> Mapping[str, str]:
    """What is laid over the environment of the worker."""
    return {"HEADGATE_REDIS_URL": celery_valkey.url, "HEADGATE_HOME": str(tmp_path / "home")}


@pytest.fixture
def celery_worker_cluster(
    celery_worker_argv: Sequence[str], celery_worker_env: Mapping[str, str], tmp_path: Path
) -> Iterator[CeleryWorkerCluster]:
    """The plugin's workers: one process, ready to take jobs."""
    with ExitStack() as stack:
        argv = [*celery_worker_argv, "-n", "worker1@%h"]
        child = WorkerProcess(argv, log_path=tmp_path / "worker1.log", env=celery_worker_env)
        stack.callback(child.kill)
        child.start()
        container: Any = LocalWorker(child, "worker1")
        yield CeleryWorkerCluster(CeleryTestWorker(container, app=None))
