"""A signal ends a worker also in the worst moments: while it starts, and while Redis is away."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import jobs
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildProcess, wait_until
from tests.support.command import PROGRAM, headgate
from tests.support.installation import exit_code, nothing_is_left
from tests.support.proxy import TcpProxy
from tests.support.rig import noop_worker, runs, send_noops, wait_until_drained
from tests.support.servers import Simulator, ValkeyServer, short_folder

BOUND_S = 30
"""Drain times below are short; a worker that hangs would only end 10 s after them, with code 3."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., ChildProcess]]:
    """Starts a command that is not waited for to be ready."""
    with ExitStack() as stack:

        def start(argv: list[str], **settings: object) -> ChildProcess:
            env = {f"HEADGATE_{name.upper()}": str(value) for name, value in settings.items()}
            env.setdefault("HEADGATE_HOME", str(tmp_path / "home"))
            child = ChildProcess(argv, log_path=tmp_path / "child.log", env=env)
            stack.callback(child.kill)
            return child.start()

        yield start


WORKER = [sys.executable, "-m", "celery", "-A", "headgate.workers.app", "worker", "--loglevel=INFO"]


def test_a_signal_in_the_middle_of_the_start_is_obeyed(
    valkey: ValkeyServer, started: Callable[..., ChildProcess]
) -> None:
    """`headgate worker` holds signals back while the worker takes its place and starts."""
    child = started([*PROGRAM, "worker"], redis_url=valkey.url)
    process = psutil.Process(child.pid)
    wait_until(lambda: "headgate.workers" in process.cmdline(), 30, "the worker to take over")
    child.signal(signal.SIGTERM)
    assert exit_code(child, BOUND_S) == 0
    assert " ready." not in child.log()


def test_without_a_broker_a_worker_ends_on_a_signal(started: Callable[..., ChildProcess]) -> None:
    child = started(WORKER, redis_url="redis://127.0.0.1:1/0")
    wait_until(lambda: "trying until it answers" in child.log(), 30, "the worker to try")
    child.signal(signal.SIGTERM)
    assert exit_code(child, BOUND_S) == 0
    assert "Traceback" not in child.log(), child.log_from("Traceback")


def test_a_broker_that_lets_in_and_says_nothing_keeps_no_worker(
    valkey: ValkeyServer,
    tcp_proxy: Callable[[int], TcpProxy],
    started: Callable[..., ChildProcess],
) -> None:
    proxy = tcp_proxy(valkey.port)
    proxy.stall()
    child = started(WORKER, redis_url=f"redis://127.0.0.1:{proxy.port}/0")
    wait_until(lambda: proxy.accepted, 30, "the worker to connect")
    child.signal(signal.SIGTERM)
    assert exit_code(child, BOUND_S) == 0
    assert "not closed within" not in child.log()


@pytest.mark.parametrize("outage", ["down", "frozen"])
def test_while_redis_is_away_a_worker_ends_in_time_and_its_jobs_return_with_their_leases(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path, outage: str
) -> None:
    server = valkey_factory(appendonly=True)
    workers: list[WorkerProcess] = []
    with ExitStack() as stack, server.client(decode_responses=False) as client:
        for name in ("one", "two"):
            workers.append(noop_worker(server, tmp_path, name, lease_s=2, drain_s=1))
            stack.callback(workers[-1].kill)
        first, second = workers
        first.start()
        sent = send_noops(client, 20, sleep_s=10)  # they still run when the outage begins
        wait_until(lambda: first.log().count(" begins") >= 20, 20, "the jobs to begin")
        wait_until(lambda: client.zcard(Keys().leases()) == 20, 20, "the leases")
        client.waitaof(1, 0, 5000)
        server.kill() if outage == "down" else server.freeze()
        first.signal(signal.SIGTERM)
        assert exit_code(first, BOUND_S) == 3
        server.start() if outage == "down" else server.thaw()
        second.start()
        wait_until_drained(client, 30)
        assert sorted(runs(client)) == sorted(sent)


def test_an_idle_worker_of_a_redis_that_is_down_has_nothing_to_give_back(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    server = valkey_factory()
    worker = noop_worker(server, tmp_path, drain_s=1)
    with ExitStack() as stack:
        stack.callback(worker.kill)
        worker.start()
        server.kill()
        wait_until(lambda: "does not answer" in worker.log(), 20, "the worker to notice")
        worker.signal(signal.SIGTERM)
        assert exit_code(worker, BOUND_S) == 0
        assert "not closed within" not in worker.log()


def test_a_second_ctrl_c_of_up_gives_the_jobs_back(
    simulator_factory: Callable[..., Simulator], started: Callable[..., ChildProcess]
) -> None:
    simulator = simulator_factory("--latency-ms", "60000")
    with short_folder() as folder:
        home = folder / "home"
        settings = {"HEADGATE_HOME": str(home), "HEADGATE_DRAIN_S": "600"}
        up = started([*PROGRAM, "up"], home=home, drain_s=600, simulator_url=simulator.url)
        wait_until(lambda: "everything runs" in up.log(), 60, "up to be ready")
        submitted = headgate(["submit", "hello", "--json"], settings)
        assert submitted.code == 0, submitted.err
        wait_until(lambda: simulator.stats()["open_now"] == 1, 30, "the call to be open")
        up.signal(signal.SIGINT)
        wait_until(lambda: "may finish" in up.log(), 20, "up to stop")
        up.signal(signal.SIGINT)
        assert exit_code(up, BOUND_S) == 130
        assert "was killed" not in up.log()
        engine = open_engine(f"sqlite:///{home / 'headgate.db'}")
        with reading(engine) as connection:
            assert connection.scalars(select(jobs.c.status)).all() == ["queued"]
        engine.dispose()
        nothing_is_left(home)
