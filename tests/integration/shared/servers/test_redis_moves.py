"""An address that leads to another server: clients leave the demoted one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis
import uvloop

from headgate.shared import redis_url
from headgate.shared.servers import redis_client
from headgate.workers.clients.redis_batcher import RedisBatcher
from tests.support.child import BUSY, wait_until
from tests.support.proxy import TcpProxy
from tests.support.sentinels import role
from tests.support.servers import ValkeyServer


class Moving:
    """An address that leads to `old` first, and to `new` once that is the master."""

    def __init__(self, front: TcpProxy, old: ValkeyServer, new: ValkeyServer) -> None:
        self._front, self._old, self.new = front, old, new
        self.address = redis_url.read(f"redis://127.0.0.1:{front.port}/0")

    def move(self) -> None:
        """Lead new connections to the new server; open ones still reach the old one."""
        with self._old.client() as client:
            client.replicaof("127.0.0.1", str(self.new.port))
        wait_until(lambda: role(self._old) == "slave", 10, "the demotion")
        self._front.target = ("127.0.0.1", self.new.port)


@pytest.fixture
def moving(
    valkey_factory: Callable[..., ValkeyServer], tcp_proxy: Callable[[int], TcpProxy]
) -> Moving:
    old, new = valkey_factory(), valkey_factory()
    return Moving(tcp_proxy(old.port), old, new)


def test_a_blocking_client_leaves_a_demoted_master_by_itself(moving: Moving) -> None:
    client = redis_client.blocking(moving.address)
    try:
        client.set("a", "1")
        moving.move()
        client.set("b", "2")
        with moving.new.client() as other:
            assert other.get("b") == "2"
    finally:
        client.close()


async def test_an_asyncio_client_fails_once_when_its_master_was_demoted(moving: Moving) -> None:
    client = redis_client.on_asyncio(moving.address, timeout_s=5)
    try:
        await client.set("a", "1")
        moving.move()
        with pytest.raises(redis.ConnectionError, match="replica now"):
            await client.set("b", "2")
        await client.set("b", "3")
        with moving.new.client() as other:
            assert other.get("b") == "3"
    finally:
        await client.aclose()


async def test_a_pipeline_of_the_batcher_is_sent_again_to_the_new_master(moving: Moving) -> None:
    lane = RedisBatcher(redis_client.on_asyncio(moving.address, timeout_s=5))
    try:
        await lane.send("SET", "a", "1")
        moving.move()
        async with asyncio.timeout(10 * BUSY):
            await asyncio.gather(lane.send("GET", "a"), *(lane.send("INCR", "n") for _ in range(9)))
        with moving.new.client() as other:
            assert int(other.get("n") or 0) >= 9
    finally:
        await lane.close()


def test_on_uvloop_a_write_to_a_closed_connection_is_a_lost_connection(
    valkey: ValkeyServer,
) -> None:
    async def lose() -> None:
        client = redis_client.on_asyncio(redis_url.read(valkey.url), timeout_s=5)
        pool: Any = client.connection_pool
        connection = await pool.get_connection()
        connection._writer.transport.abort()
        with pytest.raises(redis.ConnectionError, match="closed"):
            await connection.send_command("PING")
        await pool.release(connection)
        assert await client.ping(), "the next command connects anew"
        await client.aclose()

    uvloop.run(lose())
