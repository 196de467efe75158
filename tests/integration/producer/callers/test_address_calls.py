"""The limit of calls of each address, which all gateways count in one Redis."""

import redis.asyncio

from headgate.producer.callers.address_calls import limit_of_addresses
from headgate.shared.broker.keys import Keys
from tests.support.servers import ValkeyServer, free_port


async def test_an_address_may_make_a_minute_of_calls_at_once(valkey: ValkeyServer) -> None:
    redis_of = redis.asyncio.Redis.from_url
    async with redis_of(valkey.url) as one, redis_of(valkey.url) as other:
        counts = [limit_of_addresses(client, Keys("t:"), 3) for client in (one, other)]
        first, second = counts
        assert first is not None
        assert second is not None
        assert [await first("192.0.2.1"), await second("192.0.2.1")] == [0, 0]
        assert await first("192.0.2.1") == 0
        waits = [await first("192.0.2.1"), await second("192.0.2.1")]
        assert all(15 < wait_s <= 20 for wait_s in waits)
        assert await first("192.0.2.2") == 0
        ttl_ms = await one.pttl(Keys("t:").address_calls("192.0.2.1"))
        assert 0 < ttl_ms <= 60_000


async def test_calls_pass_without_redis_and_without_a_limit() -> None:
    async with redis.asyncio.Redis(port=free_port()) as nobody:
        count = limit_of_addresses(nobody, Keys(), 1)
        assert count is not None
        assert [await count("192.0.2.1"), await count("192.0.2.1")] == [0, 0]
        assert limit_of_addresses(nobody, Keys(), 0) is None
