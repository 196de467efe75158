"""`headgate health` and `headgate resume model` from outside."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from tests.integration.shared.admission.test_breaker_script import MODEL, Breakers
from tests.support.command import headgate
from tests.support.servers import ValkeyServer


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Breakers]:
    with valkey.client(decode_responses=False) as client:
        yield Breakers(client)


@pytest.fixture
def env(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    engine.dispose()
    return {
        "HEADGATE_REDIS_URL": valkey.url, "HEADGATE_DATABASE_URL": sqlite_url,
        "HEADGATE_HOME": str(tmp_path / "home"),
    }  # fmt: skip


def test_what_is_down_is_named_and_ends_with_1(env: dict[str, str], broker: Breakers) -> None:
    broker.client.set(broker.keys.worker("w1"), "1")
    broker.tell(answered=3, took_ms=600)
    result = headgate(["health", "--json"], env)
    assert result.code == 0, result
    [model] = result.document["models"]
    assert (model["model"], model["state"], model["calls"]) == (MODEL, "healthy", 3)
    assert model["latency_ms"] == 200
    assert result.document["workers"] == 1
    assert result.document["calls_since"] < result.document["calls_until"]
    shown = headgate(["health"], env)
    assert "calls, failed and latency are those from " in shown.err
    assert set(result.document["servers"].values()) == {"answers"}

    broker.fail()
    result = headgate(["health", "--json"], env)
    assert (result.code, len(result.document["down"])) == (1, 1)
    assert "openai/gpt-4o-mini (key0): its breaker is open" in headgate(["health"], env).err

    result = headgate(["resume", "model", "gpt-4o-mini"], env)
    assert result.out == "model gpt-4o-mini: breaker closed on 1 of its keys\n"
    assert headgate(["health"], env).code == 0


def test_without_a_worker_something_is_down(env: dict[str, str], broker: Breakers) -> None:
    result = headgate(["health"], env)
    assert (result.code, "no worker answers" in result.err) == (1, True)
    assert headgate(["resume", "model", "gpt-4o-mimi"], env).code == 2


def test_a_server_that_is_away_ends_with_3(env: dict[str, str]) -> None:
    away = env | {"HEADGATE_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert headgate(["health"], away).code == 3


def test_a_redis_that_is_nearly_full_is_told_with_what_takes_the_room(
    env: dict[str, str], broker: Breakers
) -> None:
    client, keys = broker.client, broker.keys
    client.set(keys.worker("w1"), "1")
    with client.pipeline() as pipe:
        for n in range(2_000):
            pipe.set(keys.result(f"job{n}"), b"r" * 2_000)
            pipe.set(f"another program {n}", b"x" * 900)
        pipe.lpush("headgate.standard.fast", *[b"m" * 1_000] * 1_000)
        pipe.execute()
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", int(used / 0.92))
    try:
        result = headgate(["health", "--json"], env)
        shown = headgate(["health"], env)
    finally:
        client.config_set("maxmemory", 0)
    assert result.code == shown.code == 1
    takes = result.document["memory"]["takes"]
    assert list(takes)[:3] == ["results", "keys of other programs", "queued and running jobs"]
    assert takes["results"] == pytest.approx(4_400_000, rel=0.3)
    assert takes["queued and running jobs"] == pytest.approx(1_050_000, rel=0.3)
    [fault] = result.document["down"]
    assert fault.startswith("Redis is nearly full, at 9")
    assert "down: Redis is nearly full" in shown.err
    assert headgate(["health"], env).code == 0
