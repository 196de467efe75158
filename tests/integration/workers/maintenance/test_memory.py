"""A worker follows the memory that Redis has, and logs before it is full."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis
from redis.asyncio import Redis

from headgate.shared.broker.keys import Keys
from headgate.workers.clients.memory_bounds import MB, MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.census import maintenance_turn
from headgate.workers.maintenance.memory import MemoryWatch
from tests.support.servers import ValkeyServer

KEYS = Keys()


@pytest.fixture
def server(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    return valkey_factory()


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
async def batcher(server: ValkeyServer) -> AsyncIterator[RedisBatcher]:
    batcher = RedisBatcher(Redis.from_url(server.url))
    yield batcher
    await batcher.close()


async def test_the_bounds_are_shares_of_a_small_redis(
    client: redis.Redis, batcher: RedisBatcher, caplog: pytest.LogCaptureFixture
) -> None:
    bounds = MemoryBounds(results_mb=20, cache_mb=4)
    await bounds.ask(batcher)
    assert (bounds.results_bytes, bounds.cache_bytes) == (20 * MB, 4 * MB)
    client.config_set("maxmemory", "64mb")
    await bounds.ask(batcher)
    await bounds.ask(batcher)
    assert (bounds.results_bytes, bounds.cache_bytes) == (16 * MB, 4 * MB)
    [line] = [record.getMessage() for record in caplog.records]
    told = "HEADGATE_RESULTS_MB is 20, but Redis has a maxmemory of 64.0 MB: results take at most"
    assert line == f"{told} 16.0 MB of it"
    client.config_set("maxmemory", "0")
    await bounds.ask(batcher)
    assert bounds.results_bytes == 20 * MB


async def test_a_redis_that_is_nearly_full_is_logged_once_and_so_is_the_end_of_it(
    client: redis.Redis, batcher: RedisBatcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "headgate.memory")
    watch = MemoryWatch(batcher, KEYS, ["headgate.bulk.fast"], look_every_s=0)
    await watch.look()
    assert caplog.records == []
    client.setrange("headgate:letter:1", 10 * MB, "x")
    client.config_set("maxmemory", 12 * MB)
    await watch.look()
    await watch.look()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("Redis is nearly full, at 9")
    assert ": dead letters 1" in line
    client.delete("headgate:letter:1")
    await watch.look()
    assert "Redis has room again" in caplog.messages[-1]


async def test_maintenance_takes_its_turn_in_a_full_redis(
    client: redis.Redis, batcher: RedisBatcher
) -> None:
    client.config_set("maxmemory", "1mb")
    assert await batcher.run(maintenance_turn(KEYS, "one", 60_000))
    assert not await batcher.run(maintenance_turn(KEYS, "two", 60_000))
    assert await batcher.run(maintenance_turn(KEYS, "one", 60_000))
    assert 0 < client.pttl(KEYS.sweeper()) <= 60_000
