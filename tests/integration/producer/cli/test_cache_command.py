"""`headgate cache` from outside: what it shows, deletes and refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from headgate.producer.admin import cache
from headgate.producer.installation import Installation, open_installation
from headgate.shared.broker import cache_index, jobs, script
from headgate.shared.broker.cache_index import CacheCounts
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.errors import WrongUse
from headgate.shared.settings import Settings
from tests.support.command import Ended, headgate
from tests.support.servers import ValkeyServer

KEYS = Keys("acme:")


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator["redis.Redis"]:
    with valkey.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def env(valkey: ValkeyServer, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_REDIS_URL": valkey.url, "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_KEY_PREFIX": KEYS.prefix, "HEADGATE_CACHE_MB": "2",
    }  # fmt: skip


def keep(client: "redis.Redis", *answers: tuple[str, str], ttl_ms: int = 60_000) -> None:
    """Cache answers of 100 bytes for (tenant, model)."""
    before = client.hlen(KEYS.cached())
    entries = [
        CacheWrite(f"{before + n:064x}", b"x" * 100, ttl_ms, tenant, model)
        for n, (tenant, model) in enumerate(answers)
    ]
    command = jobs.publish(
        KEYS, job_id="j", record=b"{}", ttl_s=60, answers=entries, cache_bytes=1 << 20
    )
    assert script.run(client, command) == 0


@pytest.fixture
def at(env: dict[str, str], tmp_path: Path) -> Iterator[Installation]:
    chosen = Settings(
        redis_url=env["HEADGATE_REDIS_URL"], home=env["HEADGATE_HOME"],
        key_prefix=KEYS.prefix, cache_mb=2,
    )  # fmt: skip
    opened = open_installation(chosen)
    yield opened
    opened.close()


def done(env: dict[str, str], *arguments: str) -> Ended:
    ended = headgate(["cache", *arguments], env)
    assert ended.code == 0, ended
    return ended


def test_cached_answers_are_shown_by_model_and_tenant(
    env: dict[str, str], client: "redis.Redis"
) -> None:
    keep(client, ("a", "gpt-4o"), ("a", "gpt-4o-mini"), ("b|ü\x1b", "gpt-4o"))
    script.run(
        client, cache_index.count_uses(KEYS, "call", CacheCounts(6, 2, 2, 1_500_000_000, [], []))
    )
    result = done(env, "stats", "--json").document
    assert (result["entries"], result["bytes"], result["saved_usd"]) == (3, 300, "0.0015")
    assert (result["hits"], result["shared"], result["misses"], result["hit_rate"]) == (
        6,
        2,
        2,
        0.8,
    )
    assert [(one["name"], one["entries"]) for one in result["models"]] == [
        ("gpt-4o", 2), ("gpt-4o-mini", 1),
    ]  # fmt: skip
    assert {one["name"]: one["bytes"] for one in result["tenants"]} == {"a": 200, "b|ü\x1b": 100}
    shown = done(env, "stats").out
    assert "6 hits, 2 shared, 2 misses (80.0%)" in shown
    assert "\x1b" not in shown
    assert (
        "answers deleted: 1"
        in done(env, "clear", "--tenant", "a", "--model", "gpt-4o", "--yes").out
    )


def test_an_empty_cache_has_no_hit_rate(at: Installation) -> None:
    found = cache.stats(at)
    assert (found.entries, found.bytes, found.bound_bytes) == (0, 0, 2 * 2**20)
    assert (found.hits, found.hit_rate, found.saved_usd) == (0, None, "0")


def test_thousands_with_one_end_are_all_seen(at: Installation, client: "redis.Redis") -> None:
    for _ in range(5):
        keep(client, *[("a", "gpt-4o")] * 500)
    names: Any = client.zrange(KEYS.cache_ends(), 0, -1)
    one_end: Any = dict.fromkeys(names, 4e12)
    client.zadd(KEYS.cache_ends(), one_end)
    assert cache.stats(at).entries == 2500
    assert cache.clear(at) == 2500


def test_answers_of_a_tenant_or_a_model_are_deleted(
    at: Installation, client: "redis.Redis"
) -> None:
    keep(client, *((t, m) for t in ("a", "b") for m in ("gpt-4o", "gpt-4o-mini", "old")))
    assert cache.clear(at, "a", "openai/gpt-4o") == 1
    assert cache.clear(at, None, "old") == 2
    assert cache.clear(at, "nobody") == 0
    assert cache.clear(at, "b") == 2
    left = cache.stats(at)
    assert ([one.name for one in left.models], left.entries) == (["gpt-4o-mini"], 1)


def test_all_answers_are_deleted_also_those_outside_the_index_and_a_broken_index(
    at: Installation, client: "redis.Redis"
) -> None:
    keep(client, ("a", "gpt-4o"))
    client.set(KEYS.cache("f" * 64), "of an older release")
    client.set(Keys("other:").cache("f" * 64), "of another installation")
    client.set("bystander", "1")
    assert cache.clear(at) == 2
    assert client.exists(Keys("other:").cache("f" * 64), "bystander") == 2
    client.set(KEYS.cached(), "no hash")
    cache.clear(at)
    keep(client, ("a", "gpt-4o"))
    assert cache.stats(at).entries == 1


@pytest.mark.parametrize(
    ("tenant", "model", "fault"),
    [
        (None, "gtp-4o", "did you mean gpt-4o"), ("", None, "1 to 128"),
        ("t" * 129, None, "1 to 128"),
    ],
    ids=str,
)  # fmt: skip
def test_an_impossible_name_is_refused_and_nothing_is_deleted(
    at: Installation, client: "redis.Redis", tenant: str | None, model: str | None, fault: str
) -> None:
    keep(client, ("a", "gpt-4o"))
    with pytest.raises(WrongUse) as caught:
        cache.clear(at, tenant, model)
    assert fault in caught.value.remedy
    assert client.hlen(KEYS.cached()) == 1


def test_without_confirmation_nothing_is_deleted(
    env: dict[str, str], client: "redis.Redis"
) -> None:
    keep(client, ("a", "gpt-4o"))
    ended = headgate(["cache", "clear"], env)
    assert (ended.code, "use --yes" in ended.err) == (2, True), ended
    assert client.hlen(KEYS.cached()) == 1
