"""Pruning: purged queues are noticed, and old dead letters are dropped."""

from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from redis.asyncio import Redis

from headgate.shared.broker import dead_letters, script
from headgate.shared.broker.jobs import Lease
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.memory_bounds import MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance import census
from headgate.workers.maintenance.prune import Prune
from tests.support.rig import BULK, STANDARD, URGENT, Broker, message_of, stock_message
from tests.support.servers import ValkeyServer

TICKET = "openai/gpt-4o|gpt-4o|s|acme||||10|20|1000|90000000||"
QUEUES = [URGENT, STANDARD, BULK]


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Broker]:
    with valkey.client(decode_responses=False) as client:
        yield Broker(client)


@pytest.fixture
async def batcher(valkey: ValkeyServer) -> AsyncIterator[RedisBatcher]:
    batcher = RedisBatcher(Redis.from_url(valkey.url))
    yield batcher
    await batcher.close()


def pruning(batcher: RedisBatcher, most_letters: int = 100, most_bytes: int = 10**9) -> Prune:
    return Prune(
        batcher, Keys(), queues=QUEUES, most_letters=most_letters, most_bytes=most_bytes,
        bounds=MemoryBounds(),
    )  # fmt: skip


def waits_in_a_room(broker: Broker, job_id: str) -> None:
    """The job has left its list for the waiting room of a pool."""
    keys, client, pool = broker.keys, broker.client, "openai/gpt-4o"
    message = message_of(job_id)
    assert client.lrem(STANDARD, 1, message) == 1  # type: ignore[arg-type]
    client.hset(keys.messages(), job_id, STANDARD.encode() + b"\n" + message)
    client.hincrby(keys.waiting_queues(), f"{STANDARD} {pool}", 1)
    client.zadd(keys.user_queue(STANDARD, pool, "acme", ""), {f"{job_id}|{TICKET}": 1000})


async def test_jobs_of_a_purged_queue_are_forgotten_at_the_second_look_and_no_others(
    broker: Broker, batcher: RedisBatcher
) -> None:
    broker.send(*(f"gone{n}" for n in range(2500)))
    broker.send("leased", "deferred", queue=URGENT)
    broker.take(queues=(URGENT,))
    broker.defer("deferred", 60_000)
    broker.send(*(f"kept{n}" for n in range(1500)), queue=BULK)
    broker.send("unknown", queue="headgate.bulk.unheard-of")
    prune = pruning(batcher)
    assert await prune.forget_purged() == 0
    assert await prune.forget_purged() == 0
    broker.client.delete(STANDARD)
    assert await prune.forget_purged() == 0
    assert await prune.forget_purged() == 2500
    kept = {"leased", "deferred", "unknown", *(f"kept{n}" for n in range(1500))}
    assert broker.present() == kept
    assert await prune.forget_purged() == 0


async def test_jobs_in_a_waiting_room_are_placed_and_not_looked_for(
    broker: Broker, batcher: RedisBatcher
) -> None:
    broker.send("waits", "purged")
    waits_in_a_room(broker, "waits")
    prune = pruning(batcher)
    counted = await batcher.run(census.count_jobs(Keys(), QUEUES))
    assert counted == census.JobCounts(present=2, placed=2, queued=1)
    broker.client.delete(STANDARD)
    assert await prune.forget_purged() == 0
    assert await prune.forget_purged() == 1
    assert broker.present() == {"waits"}


async def test_a_job_that_comes_back_between_two_looks_is_left_alone(
    broker: Broker, batcher: RedisBatcher
) -> None:
    broker.send("a", "b")
    broker.client.delete(STANDARD)
    prune = pruning(batcher)
    await prune.forget_purged()
    broker.push(b'{"hg":"a"}')
    assert await prune.forget_purged() == 1
    assert broker.present() == {"a"}


async def test_stock_messages_that_went_back_to_their_queue_are_found_there(
    broker: Broker, batcher: RedisBatcher
) -> None:
    import json

    for n in range(30):
        broker.push(json.dumps(stock_message(f"stock-{n}")))
    taken = broker.take(30)
    broker.restore(*taken)
    broker.send("purged", queue=BULK)
    broker.client.delete(BULK)
    prune = pruning(batcher)
    await prune.forget_purged()
    assert await prune.forget_purged() == 1
    assert len(broker.present()) == 30


async def test_a_queue_that_is_no_list_is_no_hindrance(
    broker: Broker, batcher: RedisBatcher
) -> None:
    broker.send("a")
    broker.client.set(STANDARD, "somebody's")
    prune = pruning(batcher)
    await prune.forget_purged()
    assert await prune.forget_purged() == 1


def bury(client: redis.Redis, name: str, raw: bytes) -> None:
    keys = Keys()
    client.hset(keys.owners(), name, "w")
    client.hset(keys.messages(), name, STANDARD.encode() + b"\n" + raw)
    assert script.run(client, dead_letters.bury(keys, lease=Lease(name, "w"), reason="no job"))


async def test_the_oldest_letters_over_the_bound_go_and_are_counted(
    broker: Broker, batcher: RedisBatcher, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(350):
        bury(broker.client, f"n{n}", b"%03d" % n)
    broker.client.rpush(Keys().dead(), f"17000\n{STANDARD}\nof release 0.1\nraw".encode())
    assert await pruning(batcher, most_letters=100).drop_dead_letters() == 251
    assert [raw for _, _, raw in broker.dead()] == [b"%03d" % n for n in range(250, 350)]
    assert await pruning(batcher, most_letters=100).drop_dead_letters() == 0
    assert await pruning(batcher, most_bytes=30).drop_dead_letters() == 90
    assert await pruning(batcher, most_bytes=1).drop_dead_letters() == 9
    facts: dict[bytes, bytes] = broker.client.hgetall(Keys().letters())  # type: ignore[assignment]
    assert facts == {b"made": b"350", b"bytes": b"3", b"shed": b"350"}
    assert len([*broker.client.scan_iter("headgate:letter:*")]) == 1
    assert "251 dead letters over the limit were dropped" in caplog.text
