"""A real worker process of no-op jobs: each is acked once, whatever way the worker ends."""

import base64
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from headgate.shared.broker.keys import Keys
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.poison import DEAD
from tests.support.rig import (
    STANDARD,
    Broker,
    envelope,
    noop_worker,
    runs,
    send_noops,
    stock_message,
    wait_until_drained,
)
from tests.support.servers import ValkeyServer

SECRET = "the words of the caller"  # noqa: S105  # no password: what must not be seen


@pytest.fixture
def server(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    return valkey_factory(appendonly=True)


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with server.client(decode_responses=False, socket_timeout=30) as client:
        yield client


@pytest.fixture
def worker(server: ValkeyServer, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    with ExitStack() as stack:

        def start(name: str = "one", **settings: object) -> WorkerProcess:
            process = noop_worker(server, tmp_path, name, **settings)
            stack.callback(process.kill)
            return process.start()

        yield start


Start = Callable[..., WorkerProcess]


def app_of(server: ValkeyServer) -> Celery:
    return Celery("other", broker=server.url, backend=server.url, set_as_current=False)


def send_stock(client: redis.Redis, job_id: str, sleep_s: float = 0, **headers: Any) -> None:
    """A job of a stock producer, with further headers."""
    job = envelope(job_id, metadata={"sleep_s": sleep_s}, prompt=SECRET)
    message = stock_message(job_id, [[json.loads(job.encode())], {}, {}])
    message["headers"] |= headers
    Broker(client).push(json.dumps(message))


def wait_for_lease(client: redis.Redis, count: int = 1) -> None:
    wait_until(lambda: client.zcard(Keys().leases()) >= count, 20, f"{count} leases")


def active_once_shown(app: Celery) -> list[Any]:
    """The jobs that run, as the worker shows them: a lease is on the server before it does."""
    found: list[Any] = []

    def is_shown() -> bool:
        shown: Any = app.control.inspect(timeout=10, limit=1).active() or {}
        found[:] = [job for jobs in shown.values() for job in jobs]
        return bool(found)

    wait_until(is_shown, 20, "a job to be shown")
    return found


def test_ten_thousand_jobs_are_each_run_and_acked_once(client: redis.Redis, worker: Start) -> None:
    sent = send_noops(client, 10_000)
    process = worker()
    wait_until_drained(client, 60)
    assert sorted(runs(client)) == sorted(sent)
    assert Broker(client).is_empty()
    assert process.stop(20) == 0
    assert not list(client.scan_iter("headgate:worker:*"))


def test_sigterm_in_the_middle_loses_none_and_runs_none_twice(
    client: redis.Redis, worker: Start
) -> None:
    first = worker("one", concurrency=100)
    sent = send_noops(client, 3000, sleep_s=0.3)  # 9 s of work: the signal comes in the middle
    wait_until(lambda: len(runs(client)) > 500, 30, "500 runs")
    first.signal(signal.SIGTERM)
    wait_until(lambda: not first.running, 20, "the first worker to end")
    assert first.exit_code() == 0
    assert len(runs(client)) < 3000
    assert Broker(client).leased() == {}
    worker("two")
    wait_until_drained(client)
    assert sorted(runs(client)) == sorted(sent)


def test_a_warm_shutdown_ends_at_the_drain_time_and_gives_the_rest_back(
    client: redis.Redis, worker: Start
) -> None:
    process = worker(drain_s=0.5)
    sent = send_noops(client, 20, sleep_s=60)
    wait_for_lease(client, 20)
    process.signal(signal.SIGTERM)
    wait_until(lambda: not process.running, 10, "the worker to end")
    broker = Broker(client)
    assert (broker.leased(), sorted(broker.waiting_ids())) == ({}, sorted(sent))
    assert broker.crashes() == {}


def test_sigquit_gives_running_jobs_back_at_once(client: redis.Redis, worker: Start) -> None:
    process = worker()
    sent = send_noops(client, 50, sleep_s=60)
    wait_for_lease(client, 50)
    process.signal(signal.SIGQUIT)
    wait_until(lambda: not process.running, 10, "the worker to end")
    broker = Broker(client)
    assert (broker.leased(), sorted(broker.waiting_ids())) == ({}, sorted(sent))
    assert runs(client) == []


def test_jobs_of_a_killed_worker_are_run_by_another_after_the_lease(
    client: redis.Redis, worker: Start
) -> None:
    first = worker("one", lease_s=2, concurrency=50)
    sent = send_noops(client, 500, sleep_s=1)  # 10 s of work: the kill comes in the middle
    wait_until(lambda: len(runs(client)) >= 50, 20, "the first runs")
    first.kill()
    held = len(Broker(client).leased())
    assert 0 < held <= 50
    worker("two", lease_s=2)
    wait_until_drained(client)
    counted = Counter(runs(client))
    assert counted.keys() == set(sent)
    assert max(counted.values()) <= 2
    assert sum(counted.values()) - len(sent) <= held
    assert Broker(client).crashes() == {}


def test_a_running_job_is_revoked(client: redis.Redis, worker: Start, server: ValkeyServer) -> None:
    process = worker()
    [stays] = send_noops(client, 1, sleep_s=3)
    [goes] = send_noops(client, 1, sleep_s=300)  # it could not end by itself
    wait_until(lambda: goes in Broker(client).leased(), 20, "its lease")
    with app_of(server) as app:
        app.control.revoke(goes, terminate=True)
        wait_until(lambda: goes not in Broker(client).present(), 10, "the revoked job to go")
    wait_until_drained(client)
    assert runs(client) == [stays]
    assert process.running


@pytest.mark.parametrize("limits", [[0.3, None], [None, 0.3]], ids=["hard", "soft"])
def test_a_time_limit_of_the_message_ends_the_job(
    client: redis.Redis, worker: Start, limits: list[float | None]
) -> None:
    process = worker()
    send_stock(client, "slow", sleep_s=300, timelimit=limits)
    send_stock(client, "quick", timelimit=[limit and 1000 * limit for limit in limits])
    wait_until(lambda: runs(client) == ["quick"], 10, "the quick one")
    wait_until_drained(client, 10)
    assert runs(client) == ["quick"]
    wait_until(lambda: "time limit of 0.3 s" in process.log(), 10, "the log")


def test_inspect_and_stats_show_the_job_and_never_its_words(
    client: redis.Redis, worker: Start, server: ValkeyServer
) -> None:
    worker()
    send_stock(client, "seen", sleep_s=300, argsrepr=f"({SECRET!r},)", kwargsrepr="{}")
    with app_of(server) as app:
        active = active_once_shown(app)
        inspected = app.control.inspect(timeout=30, limit=1)
        shown: list[Any] = [active, inspected.stats(), inspected.reserved()]
    assert SECRET not in json.dumps(shown)
    assert [job["id"] for job in active] == ["seen"]
    [facts] = shown[1].values()
    assert facts["pool"]["running"] == 1


def test_events_tell_the_ends_of_jobs_that_end_while_the_worker_stops(
    client: redis.Redis, worker: Start, server: ValkeyServer
) -> None:
    process = worker()
    with app_of(server) as app, client.pubsub() as listener:  # type: ignore[no-untyped-call]
        app.control.broadcast("enable_events", reply=True, timeout=30, limit=1)
        app.control.ping(timeout=30, limit=1)  # it has turned since, and notes events
        listener.psubscribe("*celeryev*")
        assert listener.get_message(timeout=30) is not None
        send_stock(client, "last", sleep_s=2)
        wait_for_lease(client)
        assert process.stop(30) == 0
        told: list[str] = []
        while (message := listener.get_message(timeout=5)) is not None:
            if message["type"] == "pmessage":
                body = base64.b64decode(json.loads(message["data"])["body"])
                found = json.loads(body)
                events = found if isinstance(found, list) else [found]
                told += [event["type"] for event in events if event.get("uuid") == "last"]
    assert told == ["task-received", "task-started", "task-succeeded"]


def test_slots_are_added_and_taken_away_by_remote_control(
    client: redis.Redis, worker: Start, server: ValkeyServer
) -> None:
    process = worker(concurrency=2)
    sent = send_noops(client, 60, sleep_s=1.5)  # some are left when the last slots are taken away
    with app_of(server) as app:

        def answer(command: str, **words: object) -> str:
            said: Any = app.control.broadcast(
                command, arguments=words, reply=True, timeout=30, limit=1
            )
            [[reply]] = [list(one.values()) for one in said]
            return str(reply.get("ok") or reply["error"])

        def held() -> int:
            return int(client.zcard(Keys().leases()))

        wait_until(lambda: held() == 2, 10, "two at once")
        assert "up to 5 jobs" in answer("pool_grow", n=3)
        wait_until(lambda: held() == 5, 10, "five at once")
        assert "up to 1 jobs" in answer("pool_shrink", n=4)
        wait_until(lambda: held() == 1, 10, "one at once")
        stats: Any = app.control.inspect(timeout=30, limit=1).stats()
        [facts] = stats.values()
        assert facts["pool"]["max-concurrency"] == 1
        assert "leave at least 1" in answer("pool_shrink")
        assert "leave at least 1" in answer("pool_grow", n=10**9)
        for wrong in (0, -1, 1.5, "x", None, True):
            assert "give a whole number" in answer("pool_grow", n=wrong)
        assert "pool_grow" in answer("autoscale", max=10, min=1)
        assert "SIGTERM" in answer("pool_restart", modules=["x"])
        assert "up to 15 jobs" in answer("pool_grow", n=14)
    wait_until_drained(client)
    assert sorted(runs(client)) == sorted(sent)
    assert "Traceback" not in process.log(), process.log_from("Traceback")


def test_a_worker_survives_every_message_that_is_no_job(client: redis.Redis, worker: Start) -> None:
    process = worker()
    broker, good = Broker(client), []
    bad = [raw.replace(b'"bad"', b'"bad-%d"' % n) for n, raw in enumerate(DEAD.values())]
    for raw in bad:
        broker.push(raw)
        good += send_noops(client, 1)
    wait_until(lambda: len(runs(client)) == len(good), 30, "every good job to run")
    assert sorted(runs(client)) == sorted(good)
    wait_until_drained(client)
    assert process.running
    buried = broker.dead()
    assert Counter(raw for _, _, raw in buried) == Counter(bad)
    assert all(queue == STANDARD and reason for queue, reason, _ in buried)
    assert "Traceback" not in process.log(), process.log_from("Traceback")


def test_a_server_killed_under_load_repeats_no_job(
    server: ValkeyServer, client: redis.Redis, worker: Start
) -> None:
    process = worker(concurrency=100)
    sent = send_noops(client, 2000, sleep_s=0.02, silent=1)
    wait_until(lambda: client.scard(Keys().present()) < 1500, 20, "some to be acked")
    server.kill()
    server.start()
    wait_until_drained(client, 40)
    assert process.running
    assert Broker(client).is_empty()
    begun = [line for line in process.log().splitlines() if " begins" in line]
    started = Counter(job_id for line in begun for job_id in sent if job_id in line)
    assert max(started.values(), default=1) == 1


def test_a_job_that_celery_has_shown_outlives_celerys_connection(
    server: ValkeyServer, client: redis.Redis, worker: Start
) -> None:
    process = worker()
    send_stock(client, "long", sleep_s=300)
    with app_of(server) as app:
        assert [job["id"] for job in active_once_shown(app)] == ["long"]
    server.kill()  # while the job runs, which Celery knows by now
    wait_until(lambda: "Connection to broker lost" in process.log(), 20, "the loss")
    server.start()
    send_stock(client, "other")
    wait_until(lambda: "other" in runs(client), 30, "the next job")
    assert process.running
    assert "Traceback" not in process.log(), process.log_from("Traceback")


def test_a_queue_of_any_name_can_be_added_and_what_is_no_job_there_is_buried_and_never_logged(
    server: ValkeyServer, client: redis.Redis, worker: Start
) -> None:
    process = worker()
    app = app_of(server)
    app.control.add_consumer("celery", reply=True, timeout=10)
    job = envelope()
    app.send_task("headgate.run", [json.loads(job.encode())], task_id=job.id, queue="celery")
    app.send_task("some.other", [SECRET], queue="celery")
    wait_until(lambda: runs(client) == [job.id], 15, "the job to run")
    broker = Broker(client)
    wait_until(broker.dead, 15, "the stranger to be kept")
    [(queue, reason, raw)] = broker.dead()
    assert (queue, reason) == ("celery", "headers.task is not headgate.run")
    assert b"some.other" in raw
    wait_until_drained(client)
    assert process.stop() == 0
    assert SECRET not in process.log()
