"""Worker, Redis and database are stopped in every order under load, and started again."""

import signal
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from headgate.shared.broker.keys import Keys
from headgate.workers.celery.shutdown import LAST_S
from tests.support import installation
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import PostgresServer, Simulator, ValkeyServer

AT_ONCE = 40
EACH = 60
"""Jobs that end between two stops."""

ORDERS = list(permutations(["worker", "redis", "database"]))
JOBS = (len(ORDERS) + 1) * EACH
DRAIN_S = 0.3


def installed(
    folder: Path, valkey: ValkeyServer, url: str, simulator: Simulator, count: int
) -> dict[str, str]:
    """The settings of an installation with this many jobs on their queues."""
    env = {
        "HEADGATE_HOME": str(folder / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": str(AT_ONCE),
        "HEADGATE_LEASE_S": "2",
        "HEADGATE_SWEEP_S": "2",
        "HEADGATE_DRAIN_S": str(DRAIN_S),
    }
    source = installation.write_prompts(folder / "in.jsonl", count)
    installation.command(["db", "upgrade"], env, folder / "commands.log").run()
    installation.command(["batch", "submit", source], env, folder / "commands.log").run()
    return env


def wait_until_ended(url: str, count: int, worker: ChildProcess) -> None:
    """This many jobs have ended."""
    try:
        wait_until(lambda: installation.count_ended(url) >= count, 60, f"{count} jobs to end")
    except TimeoutError as error:
        raise AssertionError(
            f"{error}; {installation.read_books(url)}\n{worker.log_end()}"
        ) from None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_in_every_order_of_stopping_nothing_is_lost_and_every_job_ends_once(
    valkey_factory: Callable[..., ValkeyServer],
    postgres_factory: Callable[[], PostgresServer],
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "400", "--latency-sigma", "0.4")
    valkey, postgres = valkey_factory(appendonly=True), postgres_factory()
    url = postgres.url("postgres")
    env = installed(tmp_path, valkey, url, simulator, JOBS)
    worker = installation.worker_process(env, tmp_path)
    parts: dict[str, ChildProcess] = {"redis": valkey, "database": postgres, "worker": worker}
    with installation.ended_afterwards(worker):
        for n, order in enumerate(ORDERS, 1):
            worker.start()
            wait_until_ended(url, n * EACH, worker)
            for name in order:
                # PostgreSQL lets nobody in after SIGTERM, and ends with its last session.
                parts[name].signal(signal.SIGTERM)
                if name != "database":
                    installation.exit_code(parts[name], DRAIN_S + LAST_S + 10)
            installation.exit_code(postgres, 30)
            silent = order.index("redis") < order.index("worker")
            assert worker.exit_code() in ((0, 3) if silent else (0,)), worker.log_end()
            valkey.start()
            postgres.start()
        worker.start()
        wait_until_ended(url, JOBS, worker)
        with valkey.client() as client:
            wait_until(lambda: not client.exists(Keys().present()), 30, "the last acks")
            published = list(client.scan_iter(match=Keys().result("*"), count=10_000))
        assert worker.stop(30) == 0
    assert "Traceback" not in worker.log(), worker.log_from("Traceback")
    # Without Redis each step of closing waits for its own bound. On a machine that is very busy the
    # last of them may come too late, but not each time.
    silent_orders = sum(order.index("redis") < order.index("worker") for order in ORDERS)
    assert worker.log().count("not closed within") < silent_orders
    assert len(published) == JOBS
    unknown = installation.read_books(url).attempts.get("unknown", 0)
    assert unknown <= AT_ONCE * len(ORDERS)
    installation.the_books_agree(url, simulator, JOBS, unknown)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["down", "frozen"])
def test_without_its_database_a_worker_gives_its_jobs_back_and_ends_in_time(
    state: str,
    valkey_factory: Callable[..., ValkeyServer],
    postgres_factory: Callable[[], PostgresServer],
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "3000")
    valkey, postgres = valkey_factory(appendonly=True), postgres_factory()
    url = postgres.url("postgres")
    env = installed(tmp_path, valkey, url, simulator, EACH)
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker), valkey.client() as client:
        worker.start()
        wait_until(lambda: simulator.stats()["open_now"] == AT_ONCE, 30, "calls to be open")
        postgres.stop() if state == "down" else postgres.freeze()
        worker.signal(signal.SIGTERM)
        assert installation.exit_code(worker, DRAIN_S + LAST_S + 10) == 0, worker.log_end()
        keys = Keys()
        assert (client.zcard(keys.leases()), client.exists(keys.crashes())) == (0, 0)
        postgres.start() if state == "down" else postgres.thaw()
        worker.start()
        wait_until_ended(url, EACH, worker)
        assert worker.stop(30) == 0
    unknown = installation.read_books(url).attempts.get("unknown", 0)
    installation.the_books_agree(url, simulator, EACH, unknown)
