"""Cancelling: a waiting job ends at once, a running job is marked, an ended job stays as it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from headgate import AsyncClient, Client, JobFailed, UnknownJob
from headgate.producer.client.client import CANCEL_WAIT_S
from headgate.producer.results.cancel import cancel
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.result import ErrorReport
from tests.support.child import wait_until
from tests.support.played import PlayedWorker, row_of, settings_for
from tests.support.servers import ValkeyServer


@pytest.fixture
def client(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> Iterator[Client]:
    with Client(settings_for(valkey.url, database_url, tmp_path)) as opened:
        yield opened


@pytest.fixture
def worker(client: Client) -> PlayedWorker:
    return PlayedWorker(client.open())


def test_a_queued_job_is_cancelled_at_once(client: Client) -> None:
    at = client.open()
    job = client.submit("Hello", metadata={"a": 1})
    result = job.cancel()
    assert (result.status, result.attempts, result.cost_usd) == ("cancelled", 0, "0")
    assert result.error is not None
    assert (result.error.code, result.metadata) == ("cancelled", {"a": 1})
    row = row_of(at, job.id)
    assert (row.status, row.fence, row.finished_at_ms is None) == ("cancelled", 1, False)
    assert client.result(job.id) == result
    with pytest.raises(JobFailed) as caught:
        job.result()
    assert (caught.value.status, caught.value.code) == ("cancelled", "cancelled")
    with at.engine.connect() as connection:
        [line] = connection.execute(select(audit)).all()
    assert (line.job_id, line.status, line.error_code, line.cost_pico_usd) == (
        job.id, "cancelled", "cancelled", 0
    )  # fmt: skip
    assert 0 < at.redis.ttl(at.keys.result(job.id)) <= at.settings.result_ttl_s


def test_a_deferred_job_keeps_what_its_attempts_cost(client: Client, worker: PlayedWorker) -> None:
    job = client.submit("Hello")
    worker.start(job.id, "deferred", retry_at_ms=9_999_999_999_999)
    first = {
        "job_id": job.id, "fence": 1, "model": "gpt-4o-mini", "provider": "openai", "waited_ms": 3,
        "started_at_ms": 1, "n": 1, "state": "failed", "code": "overloaded", "message": "busy",
        "http_status": 503, "cost_pico_usd": 0, "input_tokens": 0,
    }  # fmt: skip
    second = {
        **first, "n": 2, "state": "unknown", "code": None, "message": None, "http_status": None,
        "cost_pico_usd": None,
    }  # fmt: skip
    third = {**first, "n": 3, "state": "answered", "cost_pico_usd": 22_200_000, "input_tokens": 12}
    with client.open().engine.begin() as connection:
        connection.execute(insert(attempts), [first, second, third])
    result = job.cancel()
    assert (result.attempts, result.cost_usd, result.usage.input_tokens) == (3, "0.0000222", 12)
    assert result.error is not None
    failed, cut_off = result.error.attempts
    assert (failed.code, failed.http_status, failed.waited_ms) == ("overloaded", 503, 3)
    assert cut_off.code == "internal"
    assert "a worker died" in cut_off.message
    with client.open().engine.connect() as connection:
        [line] = connection.execute(select(audit)).all()
    assert (line.attempts, line.unknown_attempts, line.cost_pico_usd) == (3, 1, 22_200_000)


def test_a_job_that_its_worker_defers_at_that_moment_is_due_at_once(client: Client) -> None:
    """The database says "running" and Redis "waiting": the worker is between the two writes."""
    job = client.submit("Hello")
    at = client.open()
    with at.engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(status="running"))
    at.redis.zadd(at.keys.due(), {job.id: 2e15})
    job.cancel()
    assert at.redis.zscore(at.keys.due(), job.id) == 0


def test_an_ended_job_stays_as_it_ended(client: Client, worker: PlayedWorker) -> None:
    job = client.submit("Hello")
    result = worker.end(job.id)
    assert job.cancel() == result
    assert row_of(client.open(), job.id).fence == 0


def test_a_job_cancelled_twice_is_one_audit_line(client: Client) -> None:
    job = client.submit("Hello")
    assert job.cancel() == job.cancel()
    with client.open().engine.connect() as connection:
        assert len(connection.execute(select(audit)).all()) == 1


def test_a_running_job_is_marked_and_its_worker_ends_it(
    client: Client, worker: PlayedWorker
) -> None:
    at = client.open()
    job = client.submit("Hello")
    worker.start(job.id)
    with ThreadPoolExecutor(1) as pool:
        cancelling = pool.submit(client.cancel, job.id, timeout_s=90)
        wait_until(lambda: at.redis.zscore(at.keys.cancels(), job.id), 5, "the wish")
        assert row_of(at, job.id).cancel_wanted
        report = ErrorReport("cancelled", "cancelled by the caller", False)
        result = worker.end(job.id, status="cancelled", content=None, error=report)
        assert cancelling.result(90) == result


def test_a_running_job_without_a_living_worker_is_reported_as_running(
    client: Client, worker: PlayedWorker
) -> None:
    at = client.open()
    job = client.submit("Hello")
    worker.start(job.id)
    at.redis.zadd(at.keys.cancels(), {"long-forgotten": 1})
    began = time.monotonic()
    assert client.cancel(job.id, timeout_s=0.2).status == "running"
    assert time.monotonic() - began < CANCEL_WAIT_S, "it waits as long as it is told to"
    assert at.redis.zrange(at.keys.cancels(), 0, -1) == [job.id.encode()]


def test_a_whole_batch_is_cancelled_in_few_transactions(
    client: Client, worker: PlayedWorker
) -> None:
    at = client.open()
    ids = client.submit_many([f"p{i}" for i in range(1_200)])
    worker.end(ids[3])
    worker.start(ids[4])
    ttl_s = at.settings.result_ttl_s
    became = cancel(at.engine, at.redis, at.keys, [*ids, "no-such-job"], result_ttl_s=ttl_s)
    assert became.running == {ids[4]}
    assert became.ended[ids[3]].status == "succeeded"
    cancelled = [job_id for job_id, r in became.ended.items() if r.status == "cancelled"]
    assert len(cancelled) == 1_198
    assert "no-such-job" not in became.ended


def test_many_are_cancelled_in_one_call(client: Client, worker: PlayedWorker) -> None:
    at = client.open()
    ids = client.submit_many([f"p{i}" for i in range(700)])
    worker.end(ids[3])
    worker.start(ids[4])
    began = time.monotonic()
    found = client.cancel_many(ids, timeout_s=0.2)
    assert time.monotonic() - began < CANCEL_WAIT_S, "it waits once for all that run"
    assert [result.id for result in found] == ids
    others = {3: "succeeded", 4: "running"}
    assert [r.status for r in found] == [others.get(n, "cancelled") for n in range(len(ids))]
    assert at.redis.zrange(at.keys.cancels(), 0, -1) == [ids[4].encode()]
    assert client.cancel_many([]) == []


def test_an_unknown_id_does_not_keep_the_others_from_being_cancelled(client: Client) -> None:
    [job_id] = client.submit_many(["one"])
    with pytest.raises(UnknownJob, match="no-such-job"):
        client.cancel_many(["no-such-job", job_id])
    assert client.status(job_id) == "cancelled"


async def test_many_are_cancelled_in_one_call_of_the_async_client(client: Client) -> None:
    ids = client.submit_many(["one", "two"])
    async with AsyncClient(client.open().settings) as other:
        found = await other.cancel_many(ids)
    assert [(r.id, r.status) for r in found] == [(job_id, "cancelled") for job_id in ids]


def test_two_who_cancel_the_same_jobs_agree(client: Client) -> None:
    at = client.open()
    ids = client.submit_many([f"p{i}" for i in range(600)])
    ttl_s = at.settings.result_ttl_s

    def all_cancelled(order: list[str]) -> dict[str, object]:
        became = cancel(at.engine, at.redis, at.keys, order, result_ttl_s=ttl_s)
        return dict(became.ended)

    with ThreadPoolExecutor(2) as pool:
        there, back = pool.map(all_cancelled, [ids, ids[::-1]])
    assert there == back
