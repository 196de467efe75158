"""Recovering: what the broker lost is sent again, and what it knows is not."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis
from sqlalchemy import Engine, insert, select, update

from headgate.shared.broker import queues
from headgate.shared.broker.keys import Keys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import audit, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ErrorReport, Result
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.recover import Recover
from tests.support.child import wait_until
from tests.support.rig import Broker, envelope
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import Rooms

OLD_MS = 60_000


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client(decode_responses=False) as client:
        yield client


class Site:
    """One installation, and what several workers recover in it."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.engine: Engine = servers.engine()
        self.batcher = RedisBatcher(servers.async_redis_client())

    def recover(
        self, owner: str = "w", period_s: float = 1, clock_ms: Callable[[], int] = now_ms
    ) -> Recover:
        return Recover(
            self.servers, self.engine, self.batcher,
            owner=owner, period_s=period_s, result_ttl_s=3600, clock_ms=clock_ms,
        )  # fmt: skip

    def queue(self, *queued: Envelope, **changed: object) -> None:
        with self.engine.begin() as connection:
            rows = [job_row(job, job.encode()) | changed for job in queued]
            connection.execute(insert(jobs), rows)


@pytest.fixture
async def site(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    in_force = Settings(redis_url=valkey.url, database_url=database_url, home=tmp_path)
    site = Site(Servers(in_force, valkey.url, database_url))
    yield site
    await site.batcher.close()
    # A round that was cancelled leaves its query to end in its thread.
    await asyncio.get_running_loop().shutdown_default_executor()
    site.engine.dispose()


def old(**fields: Any) -> Envelope:
    return envelope(submitted_at_ms=now_ms() - OLD_MS, **fields)


@pytest.mark.parametrize("status", ["queued", "running", "deferred"])
async def test_an_open_job_that_the_broker_lost_is_sent_again_once(
    site: Site, client: redis.Redis, status: str
) -> None:
    lost = [old(priority="bulk") for _ in range(3)]
    site.queue(*lost, status=status)
    assert (await site.recover().recover_all())[1] == 3
    assert (await site.recover().recover_all())[1] == 0
    waiting = Broker(client).waiting_ids("headgate.bulk.fast")
    assert sorted(waiting) == sorted(job.id for job in lost)


async def test_what_the_broker_knows_and_what_has_ended_is_left_alone(
    site: Site, client: redis.Redis
) -> None:
    broker, keys = Broker(client), Keys()
    known = [old() for _ in range(3)]
    ended = old()
    site.queue(*known)
    site.queue(ended, status="succeeded")
    queues.send(client, keys, [(job, job.encode()) for job in known])
    broker.take(2)
    broker.defer(known[0].id, 60_000)
    assert (await site.recover().recover_all())[1] == 0


async def test_a_job_that_was_only_just_submitted_is_left_to_its_producer(site: Site) -> None:
    site.queue(envelope())
    assert (await site.recover(period_s=30).recover_all())[1] == 0


async def test_thousands_are_looked_at_page_by_page(site: Site, client: redis.Redis) -> None:
    lost = [old() for _ in range(2300)]
    site.queue(*lost)
    assert (await site.recover().recover_all())[1] == 2300
    assert len(Broker(client).waiting()) == 2300


async def test_a_row_that_cannot_be_read_does_not_stop_the_others(
    site: Site, client: redis.Redis
) -> None:
    broken, good = old(), old()
    site.queue(broken, good)
    with site.engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == broken.id).values(envelope='{"v":99}'))
    assert (await site.recover().recover_all())[1] == 1
    assert Broker(client).waiting_ids() == [good.id]


@pytest.mark.parametrize("status", ["queued", "deferred"])
async def test_a_job_that_waits_past_its_deadline_ends_once_and_all_who_wait_hear_of_it(
    site: Site, client: redis.Redis, status: str
) -> None:
    at_ms = now_ms()  # the clock stands still, so that a slow test makes no other job late
    began: dict[str, Any] = {"submitted_at_ms": at_ms - OLD_MS}
    late = [envelope(**began, deadline_s=57, metadata={"n": n}) for n in range(450)]
    in_time = [envelope(**began, deadline_s=59), envelope(**began, deadline_s=OLD_MS)]
    recover = site.recover(clock_ms=lambda: at_ms)
    site.queue(*late, *in_time, status=status)
    with client.pubsub() as subscriber:  # type: ignore[no-untyped-call]  # not in its stubs
        subscriber.subscribe(Keys().result(late[0].id))
        subscriber.get_message(timeout=5)
        assert await recover.recover_all() == (450, 2)
        message: Any = subscriber.get_message(timeout=5)
    assert await recover.recover_all() == (0, 0)
    record = orjson.loads(message["data"])
    assert (record["status"], record["result"]["exc_message"][1]) == ("FAILURE", "deadline")
    assert 0 < client.ttl(Keys().result(late[449].id)) <= 3600
    with site.engine.connect() as connection:
        rows = {row.id: row for row in connection.execute(select(jobs))}
        lines = {row.job_id: row for row in connection.execute(select(audit))}
    assert lines.keys() == {job.id for job in late}
    assert {(line.status, line.error_code) for line in lines.values()} == {("expired", "deadline")}
    row = rows[late[0].id]
    assert (row.status, row.fence, row.cancel_wanted) == ("expired", 1, False)
    result = Result.from_json(orjson.loads(row.result))
    assert result.error == ErrorReport("deadline", "the deadline passed while it waited", False)
    assert (result.status, result.metadata, result.cost_usd) == ("expired", {"n": 0}, "0")
    assert {rows[job.id].status for job in in_time} == {status}


async def test_what_runs_past_its_deadline_is_left_to_its_worker(site: Site) -> None:
    site.queue(old(deadline_s=1), status="running")
    site.queue(old(deadline_s=1), status="succeeded")
    assert await site.recover().recover_all() == (0, 1)


async def test_a_late_job_that_cannot_be_read_does_not_stop_the_others(site: Site) -> None:
    broken, newer, good = (old(deadline_s=1) for _ in range(3))
    site.queue(broken, newer, good)
    with site.engine.begin() as connection:
        for job, text in (
            (broken, "{}"),
            (newer, newer.encode().decode().replace('"v":1', '"v":99')),
        ):
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(envelope=text))
    assert await site.recover().recover_all() == (1, 0)


async def test_late_jobs_leave_their_lines_and_the_due_list(
    site: Site, client: redis.Redis
) -> None:
    broker = Broker(client)
    late = [old(deadline_s=1) for _ in range(3)]
    site.queue(*late)
    Rooms(client, Keys()).wait(late[0].id, late[1].id)
    broker.send(late[2].id)
    broker.take(1)
    broker.defer(late[2].id, 60_000)
    assert await site.recover().recover_all() == (3, 0)
    assert broker.is_empty()
    assert client.keys("headgate:room*") == client.keys("headgate:line*") == []


async def test_one_worker_at_a_time_recovers_jobs_and_another_takes_over(
    site: Site, client: redis.Redis
) -> None:
    workers = (site.recover(owner, period_s=0.2) for owner in ("first", "second"))
    running = [asyncio.create_task(worker.run()) for worker in workers]
    key = Keys().sweeper()
    await asyncio.to_thread(wait_until, lambda: client.get(key), 5, "a worker with the turn")
    holder = client.get(key)
    job = old()
    site.queue(job)
    await asyncio.to_thread(
        wait_until, lambda: Broker(client).waiting_ids() == [job.id], 10, "the job to be sent"
    )
    running[0 if holder == b"first" else 1].cancel()
    await asyncio.to_thread(
        wait_until, lambda: client.get(key) not in (None, holder), 15, "the other worker"
    )
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
