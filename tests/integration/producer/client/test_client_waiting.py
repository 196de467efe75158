"""Waiting in an asyncio program: a thousand at once, through lost servers, at a small cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from headgate import (
    AsyncClient,
    Client,
    JobTimeout,
    Result,
    UnknownJob,
    Unreachable,
    WaitingFor,
)
from headgate.producer.client.operations import Operations
from headgate.producer.client.waiters import Found, Waiters
from headgate.producer.results import read
from headgate.shared.job.result import ErrorReport
from headgate.shared.settings import Settings
from tests.support.child import BUSY, wait_until
from tests.support.played import PlayedWorker, settings_for
from tests.support.proxy import TcpProxy
from tests.support.servers import PostgresServer, ValkeyServer

MANY = 1_000


@pytest.fixture
def proxy(valkey: ValkeyServer, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(valkey.port)


@pytest.fixture
def settings(proxy: TcpProxy, database_url: str, tmp_path: Path) -> Settings:
    return settings_for(f"redis://127.0.0.1:{proxy.port}/0", database_url, tmp_path)


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(settings) as opened:
        yield opened


@pytest.fixture
def worker(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> Iterator[PlayedWorker]:
    """Return a played worker with its own connections: only the producer uses the proxy."""
    with Client(settings_for(valkey.url, database_url, tmp_path)) as own:
        yield PlayedWorker(own.open())


async def subscribed(worker: PlayedWorker, job_id: str, count: int = 1) -> None:
    """Wait up to 5 s until the job's channel has `count` subscribers."""
    redis, channel = worker.at.redis, worker.at.keys.result(job_id)
    await asyncio.to_thread(
        wait_until, lambda: redis.pubsub_numsub(channel)[0][1] == count, 5, "subscriptions"
    )


async def test_a_job_goes_from_submit_to_result(client: AsyncClient, worker: PlayedWorker) -> None:
    job = await client.submit("Hello")
    assert await job.status() == "queued"
    pending = asyncio.create_task(job.result(timeout_s=90))
    await subscribed(worker, job.id)
    result = await asyncio.to_thread(worker.end, job.id)
    assert await pending == await client.result(job.id) == result
    assert [line.id for line in await client.jobs()] == [job.id]
    assert await job.cancel() == result


async def test_a_thousand_wait_at_once(client: AsyncClient, worker: PlayedWorker) -> None:
    ids = await client.submit_many([f"p{i}" for i in range(MANY)])
    pending = [asyncio.create_task(client.result(i, wait=True, timeout_s=300)) for i in ids]
    await subscribed(worker, ids[-1])
    assert len(worker.at.redis.client_list(_type="pubsub")) == 1

    def end_all() -> None:
        for job_id in ids:
            worker.end(job_id)

    await asyncio.to_thread(end_all)
    results = await asyncio.gather(*pending)
    assert [result.id for result in results] == ids


async def test_those_who_wait_cost_next_to_nothing_while_nothing_happens(
    client: AsyncClient,
) -> None:
    ids = await client.submit_many([f"p{i}" for i in range(MANY)])
    pending = [asyncio.create_task(client.result(i, wait=True)) for i in ids]

    async def load() -> float:
        """The share of a core that two seconds of waiting cost."""
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.sleep(2)
        return (time.process_time() - cpu) / (time.monotonic() - began)

    async with asyncio.timeout(20 * BUSY):  # the first looks and subscriptions take their time
        while await load() >= 0.25:
            pass
    assert await load() < 0.25
    for waiting in pending:
        waiting.cancel()
    await asyncio.gather(*pending, return_exceptions=True)


async def test_a_thousand_whose_time_is_over_all_hear_of_it(client: AsyncClient) -> None:
    ids = await client.submit_many([f"p{i}" for i in range(MANY)])
    pending = [asyncio.create_task(client.result(i, timeout_s=1)) for i in ids]
    results = await asyncio.gather(*pending, return_exceptions=True)
    assert all(isinstance(result, JobTimeout) for result in results)


async def test_a_result_comes_though_redis_is_down(
    client: AsyncClient, worker: PlayedWorker, proxy: TcpProxy
) -> None:
    job = await client.submit("Hello")
    pending = asyncio.create_task(job.result(timeout_s=90))
    await subscribed(worker, job.id)
    proxy.refuse()
    result = await asyncio.to_thread(worker.end, job.id)
    assert await pending == result


async def test_after_an_outage_of_redis_waiters_subscribe_again(
    client: AsyncClient, worker: PlayedWorker, proxy: TcpProxy
) -> None:
    job = await client.submit("Hello")
    pending = asyncio.create_task(job.result(timeout_s=90))
    await subscribed(worker, job.id)
    proxy.refuse()
    await subscribed(worker, job.id, 0)
    proxy.accept()
    await subscribed(worker, job.id)
    result = await asyncio.to_thread(worker.end, job.id)
    assert await pending == result


async def test_a_dead_connection_is_replaced(
    client: AsyncClient, proxy: TcpProxy, worker: PlayedWorker
) -> None:
    job = await client.submit("Hello")

    async def look(ids: Sequence[str]) -> Found:
        return await asyncio.to_thread(read.look, worker.at.engine, ids)

    async def end_or_wait(job_id: str) -> Result | WaitingFor | None:
        return await asyncio.to_thread(read.end_or_wait, worker.at.engine, job_id)

    through = redis.asyncio.Redis(port=proxy.port)
    waiters = Waiters(look, end_or_wait, through, worker.at.keys, ping_after_s=2)
    pending = asyncio.create_task(waiters.ended(job.id, 300))
    await subscribed(worker, job.id)
    held = proxy.accepted

    def pings() -> int:
        """How many PINGs the server has answered since it started."""
        told: Any = worker.at.redis.info("commandstats").get("cmdstat_ping", {"calls": 0})
        return int(told["calls"])

    before = pings()
    await asyncio.to_thread(wait_until, lambda: pings() >= before + 2, 10, "two pings")
    assert proxy.accepted == held, "no messages, but it answers pings: it stays open"
    proxy.stall()
    await asyncio.to_thread(wait_until, lambda: proxy.accepted > held, 10, "a new connection")
    proxy.flow()
    await subscribed(worker, job.id)
    result = await asyncio.to_thread(worker.end, job.id)
    assert await pending == result
    await waiters.close()


async def test_no_channel_stays_subscribed_when_nobody_waits(
    client: AsyncClient, worker: PlayedWorker
) -> None:
    ids = await client.submit_many(["a", "b"])
    with pytest.raises(JobTimeout):
        await client.result(ids[0], timeout_s=0.3)
    pending = asyncio.create_task(client.result(ids[1], wait=True))
    await subscribed(worker, ids[1])
    await subscribed(worker, ids[0], 0)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    with pytest.raises(UnknownJob):
        await client.result("no-such-job", wait=True)


async def test_two_who_wait_for_one_job_both_get_it(
    client: AsyncClient, worker: PlayedWorker
) -> None:
    job = await client.submit("Hello")
    pending = [asyncio.create_task(job.result(timeout_s=90)) for _ in range(3)]
    await subscribed(worker, job.id)
    pending.pop().cancel()
    result = await asyncio.to_thread(worker.end, job.id)
    assert await asyncio.gather(*pending) == [result, result]


def test_one_client_serves_one_event_loop_after_another(
    settings: Settings, worker: PlayedWorker
) -> None:
    client = AsyncClient(settings)

    async def through() -> Result:
        job = await client.submit("Hello")
        with pytest.raises(JobTimeout):
            await job.result(timeout_s=0.05)
        worker.end(job.id)
        return await job.result(timeout_s=5)

    assert asyncio.run(through()).status == "succeeded"
    assert asyncio.run(through()).status == "succeeded"
    asyncio.run(client.close())


async def test_a_lost_database_is_raised_to_all_who_wait(
    valkey: ValkeyServer,
    postgres: PostgresServer,
    postgres_url: str,
    tcp_proxy: Callable[[int], TcpProxy],
    tmp_path: Path,
) -> None:
    between = tcp_proxy(postgres.port)
    name = postgres_url.rpartition("/")[2]
    url = f"postgresql://postgres:s3cret@127.0.0.1:{between.port}/{name}"
    async with AsyncClient(settings_for(valkey.url, url, tmp_path)) as client:
        ids = await client.submit_many(["a", "b", "c"])
    operations = Operations(settings_for(valkey.url, url, tmp_path))
    at = await asyncio.to_thread(operations.open)

    async def look(ids: Sequence[str]) -> Found:
        return await asyncio.to_thread(operations.look, ids)

    async def end_or_wait(job_id: str) -> Result | WaitingFor | None:
        return await asyncio.to_thread(operations.end_or_wait, job_id)

    waiters = Waiters(
        look, end_or_wait, at.servers.async_redis_client(), at.keys, give_up_after_s=2
    )
    pending = [asyncio.create_task(waiters.ended(i)) for i in ids]
    in_time = asyncio.create_task(waiters.ended(ids[0], 1))
    await asyncio.sleep(0.5)
    between.refuse()
    raised = await asyncio.gather(in_time, *pending, return_exceptions=True)
    assert all(isinstance(result, Unreachable) for result in raised)
    assert "s3cret" not in str(raised[0])
    await waiters.close()
    await asyncio.to_thread(operations.close)


async def test_a_look_that_fails_for_another_reason_ends_the_wait(settings: Settings) -> None:
    operations = Operations(settings)
    waiters = operations.waiters(await asyncio.to_thread(operations.open))
    await asyncio.to_thread(operations.close)
    with pytest.raises(RuntimeError, match="closed"):
        await waiters.ended("any")
    await waiters.close()


async def test_the_message_of_a_success_has_the_result_in_it(
    settings: Settings, worker: PlayedWorker
) -> None:
    operations = Operations(settings)
    waiters = operations.waiters(await asyncio.to_thread(operations.open))
    look, waiters._look = waiters._look, none_ended  # the database tells nothing
    succeeds, fails = (operations.submit(f"prompt {n}", {}) for n in range(2))
    good, bad = (asyncio.create_task(waiters.ended(one)) for one in (succeeds, fails))
    for job_id in (succeeds, fails):
        await subscribed(worker, job_id)
    error = ErrorReport("timeout", "no answer", True)
    worker.end(fails, status="failed", content=None, error=error)
    ended = worker.end(succeeds)
    assert await asyncio.wait_for(good, 10 * BUSY) == ended
    assert not bad.done()  # a failure only says when to look
    waiters._look = look
    assert (await asyncio.wait_for(bad, 10 * BUSY)).error == error
    await waiters.close()
    await asyncio.to_thread(operations.close)


async def none_ended(_: Sequence[str]) -> Found:
    return {}


async def test_a_job_that_ended_before_its_subscription_is_found(
    settings: Settings, worker: PlayedWorker
) -> None:
    operations = Operations(settings)
    waiters = operations.waiters(await asyncio.to_thread(operations.open))
    first, second = (operations.submit(f"prompt {n}", {}) for n in range(2))
    waiting = asyncio.create_task(waiters.ended(first))
    await subscribed(worker, first)
    ended = worker.end(second, publish=False)
    assert await asyncio.wait_for(waiters.ended(second), 10 * BUSY) == ended
    waiting.cancel()
    await waiters.close()
    await asyncio.to_thread(operations.close)


async def test_the_end_of_a_new_job_is_found_though_its_message_came_too_early(
    settings: Settings, worker: PlayedWorker
) -> None:
    operations = Operations(settings)
    waiters = operations.waiters(await asyncio.to_thread(operations.open))
    other, early = (operations.submit(f"prompt {n}", {}) for n in range(2))
    keeps_open = asyncio.create_task(waiters.ended(other))
    await subscribed(worker, other)
    ended = worker.end(early)  # before anyone waits
    found = await asyncio.wait_for(waiters.ended(early, is_new=True), 10 * BUSY)
    assert found == ended
    keeps_open.cancel()
    await waiters.close()
    await asyncio.to_thread(operations.close)
