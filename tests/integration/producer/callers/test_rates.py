"""What is left of a caller's limits, as Redis has it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio

from headgate.producer.callers.rate_headers import openai_headers
from headgate.producer.callers.rates import RatedCaller, RateReader
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog import catalog
from tests.support.servers import ValkeyServer, free_port

MODEL = catalog.load(None).model("gpt-4o-mini")
KEY = "hgk_0123456789ab"


@pytest.fixture
async def client(valkey: ValkeyServer) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(valkey.url) as found:
        yield found


async def left_of(client: redis.asyncio.Redis, caller: RatedCaller) -> dict[str, str]:
    return openai_headers(await RateReader(client, Keys()).of(caller, MODEL))


async def test_the_limit_that_binds_most_is_read(client: redis.asyncio.Redis) -> None:
    keys = Keys()
    texts: dict[Any, Any] = {"tenant/*": "rpm=100", "tier/free": "rpm=50"}
    texts |= {"pool/openai/gpt-4o-mini": "tpm=90000"}
    await client.hset(keys.limits(), mapping=texts)
    assert (await left_of(client, RatedCaller("acme")))["x-ratelimit-limit-requests"] == "100"
    free = RatedCaller("acme", "u1", "free")
    found = await left_of(client, free)
    assert found["x-ratelimit-limit-requests"] == "50"
    assert found["x-ratelimit-limit-tokens"] == "90000"
    await client.hset(keys.overrides(), f"key/{KEY}", "rpm=10 tpm=500")
    found = await left_of(client, free._replace(key_id=KEY))
    assert found["x-ratelimit-limit-requests"] == "10"
    assert found["x-ratelimit-limit-tokens"] == "500"
    now_s, us = await client.time()
    level: dict[Any, Any] = {"rpm.level": "3", "rpm.at": f"{now_s * 1000 + us / 1000:.3f}"}
    await client.hset(keys.bucket(f"key/{KEY}"), mapping=level)
    found = await left_of(client, free._replace(key_id=KEY))
    assert found["x-ratelimit-remaining-requests"] == "3"


async def test_the_keys_of_a_provider_are_counted(client: redis.asyncio.Redis) -> None:
    texts: dict[Any, Any] = {"pool/openai/gpt-4o-mini": "rpm=60", "keys/openai": "n=3"}
    await client.hset(Keys().limits(), mapping=texts)
    now = [0.0]
    reader = RateReader(client, Keys(), lambda: now[0])
    await reader.of(RatedCaller("acme"), MODEL)
    now[0] = 1.0
    rates = await reader.of(RatedCaller("acme"), MODEL)
    assert openai_headers(rates)["x-ratelimit-limit-requests"] == "180"


async def test_a_caller_is_read_once_a_second(client: redis.asyncio.Redis) -> None:
    now = [0.0]
    reader = RateReader(client, Keys(), lambda: now[0])
    keys, caller = Keys(), RatedCaller("acme")
    await client.hset(keys.limits(), "tenant/acme", "rpm=5")
    first = await reader.of(caller, MODEL)
    await client.hset(keys.limits(), "tenant/acme", "rpm=7")
    assert await reader.of(caller, MODEL) is first
    now[0] = 1.0
    found = openai_headers(await reader.of(caller, MODEL))
    assert found["x-ratelimit-limit-requests"] == "7"


async def test_without_redis_nothing_is_said() -> None:
    async with redis.asyncio.Redis(port=free_port()) as nobody:
        assert await left_of(nobody, RatedCaller("acme")) == {}
