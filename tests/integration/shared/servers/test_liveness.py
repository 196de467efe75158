"""Liveness of workers: for systemd through a socket, for health checks through files."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from headgate.shared.servers.liveness import STALE_S, LivenessFile, WorkerSign, signs
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.installation import exit_code
from tests.support.proxy import TcpProxy
from tests.support.rig import noop_worker, send_noops
from tests.support.servers import ValkeyServer, short_folder


class Supervisor:
    """A datagram socket that listens like systemd."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.heard: list[str] = []
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.line.bind(self.address)
        self.line.setblocking(False)

    def count(self, word: str) -> int:
        """Return how often this message has arrived."""
        while True:
            try:
                self.heard += self.line.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard.count(word)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    with short_folder() as folder:
        supervisor = Supervisor(folder / "notify")
        with supervisor.line:
            yield supervisor


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def worker(valkey: ValkeyServer, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Return a function that prepares a no-op worker without starting it."""
    with ExitStack() as stack:

        def make(**env: str) -> WorkerProcess:
            process = noop_worker(valkey, tmp_path)
            process.env |= env
            stack.callback(process.kill)
            return process

        yield make


def test_a_supervisor_is_notified_when_jobs_run_continue_and_end(
    client: redis.Redis,
    valkey: ValkeyServer,
    worker: Callable[..., WorkerProcess],
    tcp_proxy: Callable[[int], TcpProxy],
    supervisor: Supervisor,
) -> None:
    proxy = tcp_proxy(valkey.port)
    proxy.refuse()
    process = worker(
        NOTIFY_SOCKET=supervisor.address,
        WATCHDOG_USEC="1000000",
        HEADGATE_REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0",
    )
    process.ready = lambda: True  # type: ignore[method-assign]
    process.start()
    wait_until(lambda: supervisor.count("WATCHDOG=1") > 3, 30, "pings while Redis is away")
    wait_until(lambda: "trying until it answers" in process.log(), 20, "the worker to try")
    assert supervisor.count("READY=1") == 0
    proxy.accept()
    wait_until(lambda: supervisor.count("READY=1"), 30, "the worker to be ready")
    began = time.monotonic()
    send_noops(client, 1, block_s=3)
    wait_until(lambda: " begins" in process.log(), 20, "the loop to be blocked")
    pings = supervisor.count("WATCHDOG=1")
    wait_until(lambda: client.llen("noop:runs") == 1, 20, "the loop to go on")
    free_s = time.monotonic() - began - 3  # a ping each half a second in the rest of the time
    assert supervisor.count("WATCHDOG=1") - pings <= 2 + free_s / 0.5
    seen = supervisor.count("WATCHDOG=1")
    wait_until(lambda: supervisor.count("WATCHDOG=1") > seen + 2, 20, "pings again")
    assert supervisor.count("STOPPING=1") == 0
    process.signal(signal.SIGTERM)
    assert exit_code(process) == 0
    assert (supervisor.count("READY=1"), supervisor.count("STOPPING=1")) == (1, 1)


def test_a_health_check_distinguishes_a_running_worker_from_none(
    worker: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    home = {"HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert headgate(["alive"], home).code == 1
    process = worker().start()
    [sign] = signs(tmp_path / "home")
    assert (sign.node.split("@")[0], sign.is_alive) == ("one", True)
    result = headgate(["alive", "--json"], home)
    assert (result.code, result.document["worker"], result.document["alive"]) == (
        0,
        sign.node,
        True,
    )
    assert headgate(["alive", "one"], home).code == 0
    assert headgate(["alive", "two"], home).code == 1
    process.kill()
    assert headgate(["alive"], home).code == 1
    assert process.start().stop(20) == 0
    assert list((tmp_path / "home" / "alive").glob("*/*")) == []


def test_a_worker_with_a_blocked_loop_counts_as_hanging(tmp_path: Path) -> None:
    assert WorkerSign("one@host", STALE_S - 1).is_alive
    assert not WorkerSign("one@host", STALE_S + 1).is_alive
    pulse = LivenessFile(tmp_path, "one@host")
    [sign] = signs(tmp_path)
    assert sign.is_alive
    [path] = (tmp_path / "alive").glob("*/*")
    path.write_text(f"{0:020.3f}")  # the machine's clock counts from its start
    [sign] = signs(tmp_path)
    assert sign.age_s > 0
    os.utime(path, (0, 0))
    pulse.beat()
    [sign] = signs(tmp_path)
    assert sign.is_alive
    with pytest.raises(OSError, match="name of its own"):
        LivenessFile(tmp_path, "one@host")
    pulse.close()
    assert signs(tmp_path) == []
