"""A real worker process of no-op jobs is told to stop: what runs, what goes back, how it exits."""

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from celery import Celery

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import message
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildProcess, wait_until
from tests.support.rig import (
    STANDARD,
    Broker,
    envelope,
    noop_worker,
    runs,
    send_noops,
    wait_until_drained,
)
from tests.support.servers import ValkeyServer

LONG_S = 600
"""A drain time, or a job, that no test waits for."""

Start = Callable[..., WorkerProcess]


@pytest.fixture
def server(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    return valkey_factory(appendonly=True)


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with server.client(decode_responses=False, socket_timeout=30) as client:
        yield client


@pytest.fixture
def worker(server: ValkeyServer, tmp_path: Path) -> Iterator[Start]:
    """Starts a no-op worker."""
    with ExitStack() as stack:

        def start(
            name: str = "one",
            *flags: str,
            env: dict[str, str] | None = None,
            **settings: object,
        ) -> WorkerProcess:
            process = noop_worker(server, tmp_path, name, **settings)
            process.argv += flags
            process.env |= env or {}
            stack.callback(process.kill)
            return process.start()

        yield start


def has_ended(process: ChildProcess, within_s: float = 30) -> int | None:
    """The exit code of a worker that ends within this time."""
    try:
        wait_until(lambda: not process.running, within_s, "the worker to end")
    except TimeoutError as error:
        raise AssertionError(f"{error}; its log:\n{process.log_end()}") from None
    return process.exit_code()


def running(process: WorkerProcess, count: int) -> None:
    """This many jobs have begun: one that has only been fetched goes back at once."""
    wait_until(lambda: process.log().count(" begins") >= count, 20, f"{count} jobs to begin")


def tell_again(process: WorkerProcess, number: signal.Signals) -> int | None:
    """The exit code of a worker that is told to stop until it ends; the first time is over."""

    def tell() -> bool:
        process.signal(number)
        return not process.running

    wait_until(lambda: "stopping: " in process.log(), 20, "the worker to say that it stops")
    wait_until(tell, 30, "the worker to end")
    return process.exit_code()


def all_is_back(client: redis.Redis, sent: list[str]) -> None:
    """These jobs, and nothing else, wait in the order in which they were sent, as if never run."""
    broker = Broker(client)
    assert broker.waiting_ids() == sent
    assert broker.leased() == {}
    assert broker.crashes() == {}


def test_an_idle_worker_ends_without_waiting_for_its_drain_time(
    client: redis.Redis, worker: Start
) -> None:
    process = worker(drain_s=LONG_S)
    process.signal(signal.SIGTERM)
    assert has_ended(process, 8) == 0
    assert not list(client.scan_iter("headgate:worker:*"))
    assert "Traceback" not in process.log(), process.log_from("Traceback")


def test_jobs_that_end_soon_are_finished_and_no_new_ones_begin(
    client: redis.Redis, worker: Start
) -> None:
    process = worker(drain_s=LONG_S, concurrency=10)
    sent = send_noops(client, 30, sleep_s=6)
    running(process, 10)
    process.signal(signal.SIGTERM)
    assert has_ended(process) == 0
    assert sorted(runs(client)) == sorted(sent[:10])
    all_is_back(client, sent[10:])


def test_what_does_not_end_in_time_is_back_at_the_head_in_its_order(
    client: redis.Redis, worker: Start
) -> None:
    count = 1200  # more than one call takes back
    process = worker(drain_s=0.3, concurrency=count)
    sent = send_noops(client, count + 30, sleep_s=LONG_S)
    running(process, count)
    process.signal(signal.SIGTERM)
    assert has_ended(process) == 0
    all_is_back(client, sent)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGQUIT),
        (signal.SIGQUIT, None),
    ],
    ids=lambda n: n.name if n else "alone",
)
def test_told_twice_or_by_sigquit_a_worker_gives_back_at_once(
    client: redis.Redis, worker: Start, first: signal.Signals, then: signal.Signals | None
) -> None:
    process = worker(drain_s=LONG_S, concurrency=20)
    sent = send_noops(client, 40, sleep_s=LONG_S)
    running(process, 20)
    process.signal(first)
    assert (tell_again(process, then) if then else has_ended(process)) == 0
    all_is_back(client, sent)


def test_two_signals_in_the_same_moment_count_as_one(client: redis.Redis, worker: Start) -> None:
    process = worker(drain_s=LONG_S)
    sent = send_noops(client, 5, sleep_s=3)
    running(process, 5)
    process.signal(signal.SIGTERM)
    process.signal(signal.SIGINT)
    assert has_ended(process) == 0
    assert sorted(runs(client)) == sorted(sent)


def test_celerys_own_ways_to_hurry_are_respected_or_harmless(
    client: redis.Redis, worker: Start
) -> None:
    """REMAP_SIGTERM makes SIGTERM mean SIGQUIT; a soft shutdown would sleep in its handler."""
    process = worker(
        "one", "worker.soft_shutdown_timeout=600", env={"REMAP_SIGTERM": "SIGQUIT"}, drain_s=LONG_S
    )
    sent = send_noops(client, 20, sleep_s=LONG_S)
    running(process, 20)
    process.signal(signal.SIGTERM)
    assert has_ended(process) == 0
    all_is_back(client, sent)


def test_remote_shutdown_drains_and_a_signal_meanwhile_does_not_hurry_it(
    client: redis.Redis, worker: Start, server: ValkeyServer
) -> None:
    process = worker(drain_s=LONG_S, concurrency=5)
    sent = send_noops(client, 10, sleep_s=8)
    running(process, 5)
    with Celery("other", broker=server.url, set_as_current=False) as app:
        app.control.shutdown()
    wait_until(lambda: "stopping: " in process.log(), 20, "the worker to say that it stops")
    process.signal(signal.SIGTERM)
    assert has_ended(process) == 0
    assert sorted(runs(client)) == sorted(sent[:5])
    all_is_back(client, sent[5:])


def fetch_waits(client: redis.Redis) -> bool:
    """Whether a script has come in that a pause of the server keeps waiting."""
    return any(one["cmd"] == "evalsha" and "b" in one["flags"] for one in client.client_list())


def test_the_job_of_a_reply_under_way_comes_back_at_once(
    client: redis.Redis, worker: Start
) -> None:
    process = worker(drain_s=LONG_S, lease_s=6)
    [goes_on] = send_noops(client, 1, sleep_s=15)
    running(process, 1)
    late = envelope(metadata={"sleep_s": LONG_S})
    broker, pipe = Broker(client), client.pipeline(transaction=False)
    pipe.lpush(Keys().queue(STANDARD), message(late, late.encode()))
    pipe.client_pause(60_000, all=False)
    pipe.execute()
    wait_until(lambda: fetch_waits(client), 10, "the worker's call to wait in the server")
    process.signal(signal.SIGTERM)
    wait_until(lambda: "stopping: " in process.log(), 20, "the worker to say that it stops")
    client.client_unpause()
    wait_until(lambda: broker.leased().keys() == {goes_on}, 5, "the late job to be back")
    assert broker.waiting_ids() == [late.id]
    assert has_ended(process) == 0
    assert runs(client) == [goes_on]
    all_is_back(client, [late.id])


def test_killed_in_the_middle_of_its_drain_a_worker_loses_nothing(
    client: redis.Redis, worker: Start
) -> None:
    first = worker("one", drain_s=LONG_S, lease_s=2, concurrency=20)
    sent = send_noops(client, 40, sleep_s=6)  # long, so that none has ended when it is killed
    running(first, 20)
    first.signal(signal.SIGTERM)
    wait_until(lambda: "stopping: " in first.log(), 20, "the worker to say that it stops")
    first.kill()
    worker("two", lease_s=2)
    wait_until_drained(client)
    assert sorted(runs(client)) == sorted(sent)
