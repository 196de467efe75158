"""The blocking client: results now and later, from any process and thread, and the list of jobs."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import orjson
import psutil
import pytest
from sqlalchemy import select, update

from headgate import (
    Client,
    InvalidRequest,
    JobFailed,
    JobTimeout,
    RequestFields,
    ResultExpired,
    UnknownJob,
)
from headgate.shared.database.tables import jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ErrorReport, FailedAttempt
from headgate.shared.settings import Settings
from tests.support.child import wait_until
from tests.support.played import PlayedWorker, settings_for
from tests.support.servers import ValkeyServer


@pytest.fixture(params=["", "acme:"], ids=["no prefix", "prefix"])
def settings(
    request: pytest.FixtureRequest, valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> Settings:
    return settings_for(valkey.url, database_url, tmp_path, key_prefix=request.param)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as opened:
        yield opened


@pytest.fixture
def worker(client: Client) -> PlayedWorker:
    return PlayedWorker(client.open())


def test_a_result_is_the_same_for_every_way_to_ask(
    client: Client, worker: PlayedWorker, settings: Settings
) -> None:
    job = client.submit("Hello", metadata={"a": 1})
    result = worker.end(job.id)
    assert job.result(timeout_s=5) == result
    assert client.result(job.id) == result
    assert client.result(job.id, wait=True) == result
    with Client(settings) as other:
        assert other.result(job.id, timeout_s=5) == result


def test_a_job_that_has_not_ended_has_a_result_with_its_status(
    client: Client, worker: PlayedWorker
) -> None:
    job = client.submit("Hello", metadata={"a": 1})
    queued = client.result(job.id)
    assert (queued.status, queued.started_at, queued.metadata) == ("queued", None, {"a": 1})
    assert queued.model == "gpt-4o-mini"
    worker.start(job.id)
    running = client.result(job.id)
    assert running.status == job.status() == "running"
    assert running.queued_ms is not None
    worker.start(job.id, "deferred", retry_at_ms=1_800_000_000_123)
    deferred = client.result(job.id)
    assert (deferred.status, deferred.retry_at) == ("deferred", "2027-01-15T08:00:00.123Z")


@pytest.mark.parametrize("publish", [True, False], ids=["published", "not published"])
def test_a_waiting_caller_gets_the_result_when_the_job_ends(
    client: Client, worker: PlayedWorker, publish: bool
) -> None:
    job = client.submit("Hello")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.result, 60)
        at, channel = client.open(), client.open().keys.result(job.id)
        wait_until(lambda: at.redis.pubsub_numsub(channel)[0][1] == 1, 5, "the subscription")
        result = worker.end(job.id, publish=publish)
        assert waiting.result(30) == result


def test_a_failed_job_raises_from_its_job_and_only_reports_by_id(
    client: Client, worker: PlayedWorker
) -> None:
    job = client.submit("Hello")
    attempt = FailedAttempt("gpt-4o-mini", "overloaded", "busy", 503, 0)
    report = ErrorReport("overloaded", "all models are busy", True, [attempt])
    worker.end(job.id, status="failed", content=None, error=report)
    with pytest.raises(JobFailed) as caught:
        job.result(timeout_s=5)
    error = caught.value
    assert (error.status, error.code, error.job_id) == ("failed", "overloaded", job.id)
    assert error.error["attempts"][0]["http_status"] == 503
    assert client.result(job.id).error == report
    assert client.result(job.id, wait=True).error == report


def test_an_expired_job_raises_with_its_status(client: Client, worker: PlayedWorker) -> None:
    job = client.submit("Hello")
    report = ErrorReport("deadline", "the deadline has passed", False)
    worker.end(job.id, status="expired", content=None, error=report)
    with pytest.raises(JobFailed) as caught:
        job.result()
    assert (caught.value.status, caught.value.code) == ("expired", "deadline")


@pytest.mark.parametrize("timeout_s", [0, 0.2])
def test_a_wait_that_is_too_short_raises_and_the_job_goes_on(
    client: Client, worker: PlayedWorker, timeout_s: float
) -> None:
    job = client.submit("Hello")
    with pytest.raises(JobTimeout) as caught:
        job.result(timeout_s=timeout_s)
    assert (caught.value.job_id, caught.value.timeout_s) == (job.id, timeout_s)
    worker.end(job.id)
    assert job.result(timeout_s=0).status == "succeeded"


def test_an_unknown_id_is_not_taken_for_a_queued_job(client: Client) -> None:
    for ask in (
        lambda: client.result("no-such-job"),
        lambda: client.result("no-such-job", wait=True),
        lambda: client.result("no-such-job", timeout_s=0),
        lambda: client.status("no-such-job"),
        lambda: client.cancel("no-such-job"),
    ):
        with pytest.raises(UnknownJob, match="no-such-job"):
            ask()


def test_an_expired_result_is_not_taken_for_an_unknown_job(
    client: Client, worker: PlayedWorker
) -> None:
    job = client.submit("Hello")
    worker.end(job.id)
    with client.open().engine.begin() as connection:
        connection.execute(update(jobs).values(result=None, envelope=None))
    for wait in (False, True):
        with pytest.raises(ResultExpired) as caught:
            client.result(job.id, wait=wait)
        assert (caught.value.status, caught.value.job_id) == ("succeeded", job.id)
    assert job.status() == "succeeded"
    assert job.cancel().status == "succeeded"


def test_many_threads_share_one_client_and_one_subscription(
    client: Client, worker: PlayedWorker
) -> None:
    submitted = [client.submit(f"p{i}") for i in range(40)]
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(job.result, 30) for job in submitted]
        for job in submitted:
            worker.end(job.id)
        answers = [future.result(30).id for future in waiting]
    assert answers == [job.id for job in submitted]
    assert sum(t.name == "headgate-client" for t in threading.enumerate()) == 1


def test_jobs_are_listed_newest_first_and_by_what_is_asked(
    client: Client, worker: PlayedWorker
) -> None:
    ids = []
    for i in range(6):
        ids.append(client.submit(f"p{i}", tenant="acme" if i % 2 else "other").id)
        submitted_at_ms = now_ms()
        while now_ms() == submitted_at_ms:
            pass  # ids of one millisecond have no order
    worker.end(ids[0])
    worker.start(ids[1])
    assert [line.id for line in client.jobs()] == ids[::-1]
    assert [line.id for line in client.jobs(limit=2)] == ids[:3:-1]
    assert [line.id for line in client.jobs(status="succeeded")] == [ids[0]]
    assert [line.id for line in client.jobs(tenant="acme", status="running")] == [ids[1]]
    assert len(client.jobs(since=timedelta(hours=1))) == 6
    assert client.jobs(since=datetime.now().astimezone() + timedelta(hours=1)) == []
    line = client.jobs(status="running")[0]
    assert (line.tenant, line.model, line.finished_at) == ("acme", "gpt-4o-mini", None)
    assert line.as_json()["started_at"].endswith("Z")


def test_wrong_arguments_of_jobs_are_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="status"):
        client.jobs(status="done")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="limit"):
        client.jobs(limit=0)
    with pytest.raises(InvalidRequest, match="time zone"):
        client.jobs(since=datetime.now())  # noqa: DTZ005
    with pytest.raises(InvalidRequest, match="tenant"):
        client.jobs(tenant=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("since", [3600, 0.5, "1 hour", date(2026, 1, 2)])
def test_a_time_that_jobs_does_not_take_is_refused_with_what_to_give(
    client: Client, since: Any
) -> None:
    with pytest.raises(InvalidRequest, match=r"10m, 2h, 7d") as caught:
        client.jobs(since=since)
    assert (caught.value.field, caught.value.value) == ("since", since)


def test_mistakes_in_other_arguments_are_refused_by_name(client: Client) -> None:
    job: Any = client.submit("Hello")
    calls: dict[str, list[Callable[[], object]]] = {
        "job_id": [
            lambda: client.result(job),
            lambda: client.result(job, wait=True),
            lambda: client.status(job),
            lambda: client.cancel(job),
            lambda: next(iter(client.stream(job))),
        ],
        "timeout_s": [
            lambda: job.result(timeout_s="5"),
            lambda: job.result(timeout_s=math.nan),
            lambda: next(iter(client.stream(job.id, timeout_s=-1))),
        ],
        "pulse_s": [lambda: next(iter(client.stream(job.id, pulse_s=cast("Any", "5"))))],
        "requests": [
            lambda: client.submit_many(cast("Any", 5)),
            lambda: client.submit_many(cast("Any", None)),
        ],
        "prompt": [lambda: client.submit(cast("Any", 5)), lambda: client.route("a", prompt="b")],
        "by": [lambda: client.usage(cast("Any", 5)), lambda: client.usage("tenats")],
    }
    for field, wrong in calls.items():
        for call in wrong:
            with pytest.raises(InvalidRequest) as caught:
                call()
            assert caught.value.field == field
            assert caught.value.remedy


def test_a_forked_child_opens_its_own_connections(client: Client, worker: PlayedWorker) -> None:
    before = client.submit("before")
    with pytest.raises(JobTimeout):
        before.result(timeout_s=0.1)  # the thread that waits exists
    child = os.fork()
    if child == 0:
        try:
            inside = client.submit("in the child")
            worker_inside = PlayedWorker(client.open())
            worker_inside.end(inside.id)
            done = inside.result(timeout_s=10).status == "succeeded"
            client.close()
            os._exit(0 if done else 1)
        except BaseException:
            os._exit(2)
    ended = psutil.Process(child)
    try:
        wait_until(lambda: ended.status() == psutil.STATUS_ZOMBIE, 20, "the child to end")
    finally:
        ended.kill()
        _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == 0
    worker.end(before.id)
    assert before.result(timeout_s=5).status == "succeeded"
    assert len(client.jobs()) == 2


def test_a_closed_client_says_so_and_its_waiters_end(settings: Settings) -> None:
    client = Client(settings)
    job = client.submit("Hello")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(job.result)
        at = client.open()
        channel = at.keys.result(job.id)
        wait_until(lambda: at.redis.pubsub_numsub(channel)[0][1] == 1, 5, "the subscription")
        client.close()
        with pytest.raises(RuntimeError, match="closed while"):
            waiting.result(10)
    with pytest.raises(RuntimeError, match="make a new one"):
        client.submit("Hello")
    assert not any(t.name == "headgate-client" for t in threading.enumerate())


def test_each_sample_of_many_requests_is_a_job_in_order(client: Client) -> None:
    ids = client.submit_many(["one", "two"], samples=3)
    assert len(set(ids)) == 6
    with client.open().engine.connect() as connection:
        rows = {
            row.id: row.envelope for row in connection.execute(select(jobs.c.id, jobs.c.envelope))
        }
    envelopes = [Envelope.decode(orjson.loads(rows[one])) for one in ids]
    made = [(envelope.request.prompt, envelope.sample) for envelope in envelopes]
    assert made == [("one", 1), ("one", 2), ("one", 3), ("two", 1), ("two", 2), ("two", 3)]
    keyed: list[RequestFields] = [{"prompt": "one", "idempotency_key": "k"}]
    again = client.submit_many(keyed, samples=2)
    assert client.submit_many(keyed, samples=3)[:2] == again
    with pytest.raises(InvalidRequest, match="samples"):
        client.submit_many(["one"], samples=0)
    with pytest.raises(InvalidRequest, match="submit_many"):
        client.submit("one", samples=3)  # type: ignore[call-arg]
