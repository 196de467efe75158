"""The cache on a real Valkey: answers, their lifetimes, the cache index and its bound."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from headgate.shared.broker import cache_index, jobs, script
from headgate.shared.broker.cache_index import CacheCounts, entry_from
from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.cache.ttl import CachePolicy
from headgate.shared.job.ids import now_ms
from headgate.shared.job.request import Request, request_from
from headgate.shared.job.result import Reply, Usage
from headgate.workers.clients.memory_bounds import MemoryBounds
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.prune import Prune
from headgate.workers.stages.cache import WINDOW_S, Cache, Question
from headgate.workers.stages.cache_entry import COMPRESSED, CacheEntry
from tests.support.child import wait_until
from tests.support.servers import ValkeyServer

KEYS = Keys()
MB = 1 << 20


class Clock:
    """The worker's clock, which stands still; the server's own goes on as it is."""

    ahead_ms = 0

    def __init__(self) -> None:
        self.began_ms = now_ms()

    def __call__(self) -> int:
        return self.began_ms + self.ahead_ms


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator["redis.Redis"]:
    with valkey.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def cache(valkey: ValkeyServer, clock: Clock) -> AsyncIterator[Cache]:
    lane = RedisBatcher(Redis.from_url(valkey.url))
    yield Cache(lane, KEYS, policy=CachePolicy(), clock_ms=clock)
    await lane.close()


def ask(**fields: Any) -> Request:
    return request_from({"prompt": "2 + 2?", **fields})


def answer(model: str = "alpha", words: str = "four") -> CacheEntry:
    return CacheEntry(Reply(words, "stop", Usage(3, 0, 0, 1, 0)), "custom", 12, model)


def store(client: "redis.Redis", *entries: CacheWrite, bound: int = MB) -> int:
    """Put the entries into the cache, and return the reply of the script."""
    return script.run(
        client,
        jobs.publish(
            KEYS, job_id="job", record=b"{}", ttl_s=60, answers=entries, cache_bytes=bound
        ),
    )


def counts(client: "redis.Redis") -> dict[str, int]:
    found: Any = client.hgetall(KEYS.cache_counts())
    return {name.decode(): int(value) for name, value in found.items()}


def entries(client: "redis.Redis") -> dict[str, int]:
    """All answers that there are, with their bytes."""
    names = [name.decode() for name in client.scan_iter(KEYS.cache("?" * 64), count=1000)]
    return {name.rpartition(":")[2]: int(client.strlen(name)) for name in names}


def the_books_are_true(client: "redis.Redis") -> None:
    """Each book has the answers that there are, and no others."""
    kept = entries(client)
    lines: Any = client.hgetall(KEYS.cached())
    assert {name.decode(): entry_from(line).size for name, line in lines.items()} == kept  # type: ignore[union-attr]
    for book in (KEYS.cache_uses(), KEYS.cache_ends()):
        members: Any = client.zrange(book, 0, -1)
        assert {name.decode() for name in members} == set(kept)
    assert counts(client).get("bytes", 0) == sum(kept.values())


async def test_an_equal_request_finds_the_answer_and_no_other_does(
    cache: Cache, client: "redis.Redis"
) -> None:
    store(client, *cache.writes(Question(ask()), answer(), "alpha"))
    found = await cache.recall(Question(ask(user="another")), "alpha")
    assert found is not None
    assert (found.reply, found.provider, found.cost_pico_usd) == (answer().reply, "custom", 12)
    assert (found.model, found.shared) == ("alpha", False)
    for other, model in (
        (ask(), "beta"), (ask(tenant="b"), "alpha"), (ask(params={"seed": 1}), "alpha"),
        (ask(cache={"mode": "off"}), "alpha"),
    ):  # fmt: skip
        assert await cache.recall(Question(other), model) is None
    the_books_are_true(client)


@pytest.mark.parametrize(
    ("wish", "ttl_s"),
    [({}, 1800), ({"cache": {"ttl_s": 90}}, 90), ({"cache": {"ttl_s": 1}}, WINDOW_S)],
)
async def test_an_answer_is_kept_for_its_lifetime_and_at_least_for_the_window(
    cache: Cache, client: "redis.Redis", wish: dict[str, Any], ttl_s: int
) -> None:
    [entry] = cache.writes(Question(ask(**wish)), answer(), "alpha")
    before_ms = now_ms()
    store(client, entry)
    left_ms: Any = client.pttl(KEYS.cache(entry.fingerprint))
    after_ms = now_ms()
    assert ttl_s * 1000 - (after_ms - before_ms) - 2 <= left_ms <= ttl_s * 1000
    booked = entry_from(client.hget(KEYS.cached(), entry.fingerprint))  # type: ignore[arg-type]
    assert booked is not None
    assert (booked.tenant, booked.model) == ("default", "alpha")
    assert before_ms - 2 <= booked.ends_ms - ttl_s * 1000 <= after_ms + 2


@pytest.mark.parametrize(
    "fields", [{"cache": {"mode": "off"}}, {"params": {"temperature": 1}}], ids=str
)
async def test_what_is_not_to_be_kept_leaves_nothing(cache: Cache, fields: dict[str, Any]) -> None:
    assert cache.writes(Question(ask(**fields)), answer(), "alpha") == ()
    assert await cache.recall(Question(ask(**fields)), "alpha") is None


async def test_past_its_lifetime_an_answer_only_serves_those_who_may_share(
    cache: Cache, client: "redis.Redis", clock: Clock
) -> None:
    brief = ask(cache={"ttl_s": 1})
    store(client, *cache.writes(Question(brief), answer(), "alpha"))
    assert (await cache.recall(Question(brief), "alpha")).shared is False  # type: ignore[union-attr]
    clock.ahead_ms = 1500
    assert (await cache.recall(Question(brief), "alpha")).shared is True  # type: ignore[union-attr]
    assert await cache.recall(Question(ask(share=False)), "alpha") is None


async def test_a_stand_ins_answer_is_there_under_both_names_one_for_a_moment(
    cache: Cache, client: "redis.Redis"
) -> None:
    own, moment = cache.writes(Question(ask()), answer("beta"), "alpha")
    assert (own.ttl_ms, moment.ttl_ms) == (1_800_000, WINDOW_S * 1000)
    store(client, own, replace(moment, ttl_ms=60_000))  # longer than the machine stands still
    assert await cache.recall(Question(ask()), "alpha", lambda: {"alpha"}) is None
    found = await cache.recall(Question(ask()), "alpha", lambda: {"alpha", "beta"})
    assert found is not None
    assert (found.model, found.shared) == ("beta", True)
    assert (await cache.recall(Question(ask()), "beta")).shared is False  # type: ignore[union-attr]
    assert len(cache.writes(Question(ask(share=False)), answer("beta"), "alpha")) == 1


def poison(client: "redis.Redis", kind: str) -> None:
    name = KEYS.cache(fingerprint(ask(), "alpha"))
    client.delete(name)
    if kind == "a list":
        client.lpush(name, "secret words")
    else:
        text = {"no JSON": b"secret words", "a bomb": COMPRESSED + b"secret words"}[kind]
        client.set(name, text, px=60_000)


@pytest.mark.parametrize("kind", ["a list", "no JSON", "a bomb"])
async def test_a_poisoned_entry_is_a_miss_is_removed_and_is_not_quoted(
    cache: Cache, client: "redis.Redis", kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store(client, *cache.writes(Question(ask()), answer(), "alpha"))
    poison(client, kind)
    with caplog.at_level(logging.WARNING):
        assert await cache.recall(Question(ask()), "alpha") is None
    assert "is removed" in caplog.text
    assert "secret" not in caplog.text
    assert entries(client) == {}
    the_books_are_true(client)


async def test_hits_are_counted_in_one_round_trip_for_many(
    cache: Cache, client: "redis.Redis"
) -> None:
    store(client, *cache.writes(Question(ask()), answer(), "alpha"))
    name = fingerprint(ask(), "alpha")
    before: Any = client.zscore(KEYS.cache_uses(), name)
    await asyncio.gather(*(cache.recall(Question(ask()), "alpha") for _ in range(100)))
    await cache.recall(Question(ask(prompt="another")), "alpha")
    sent: Any = client.info("commandstats")["cmdstat_evalsha"]["calls"]

    def all_told() -> bool:  # a report may have gone out before the last of them
        told = counts(client)
        return (told.get("hits"), told.get("misses")) == (100, 1)

    await asyncio.to_thread(wait_until, all_told, 5, "the books to hear")
    told = counts(client)
    assert told["saved"] == 1200
    assert "shared" not in told
    assert client.zscore(KEYS.cache_uses(), name) > before
    after: Any = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - sent <= 1


async def test_an_answer_that_somebody_deleted_leaves_the_index_when_it_is_missed(
    cache: Cache, client: "redis.Redis"
) -> None:
    store(client, *cache.writes(Question(ask()), answer(), "alpha"))
    client.delete(*(KEYS.cache(name) for name in entries(client)))
    assert await cache.recall(Question(ask()), "alpha") is None
    await asyncio.to_thread(
        wait_until, lambda: counts(client).get("misses") == 1, 5, "the books to hear"
    )
    the_books_are_true(client)


def entry(n: int, size: int, ttl_ms: int = 60_000) -> CacheWrite:
    return CacheWrite(f"{n:064x}", b"x" * size, ttl_ms, "acme|ünï", "alpha")


def test_a_call_that_is_sent_twice_counts_once(client: "redis.Redis") -> None:
    told = cache_index.count_uses(KEYS, "a call", CacheCounts(3, 2, 1, 10**15, [], []))
    assert [script.run(client, told), script.run(client, told)] == [1, 0]
    assert counts(client) == {"hits": 3, "misses": 2, "shared": 1, "saved": 10**15}


def test_what_was_not_used_for_longest_goes_first(client: "redis.Redis") -> None:
    for n in range(8):
        store(client, entry(n, 1000), bound=8000)
    script.run(
        client,
        cache_index.count_uses(
            KEYS, "call", CacheCounts(1, 0, 0, 0, [entry(0, 0).fingerprint], [])
        ),
    )
    store(client, entry(8, 1000), entry(9, 1000), bound=8000)
    assert set(entries(client)) == {entry(n, 0).fingerprint for n in (0, 3, 4, 5, 6, 7, 8, 9)}
    assert counts(client)["evicted"] == 2
    the_books_are_true(client)


def test_one_answer_does_not_drive_out_many(client: "redis.Redis") -> None:
    store(client, entry(1, 1000), bound=8000)
    store(client, entry(2, 1001), bound=8000)
    assert set(entries(client)) == {entry(1, 0).fingerprint}


def test_a_broken_index_costs_no_result(client: "redis.Redis") -> None:
    client.set(KEYS.cached(), "no hash")
    assert store(client, entry(1, 100)) == -1
    assert client.get(KEYS.result("job")) == b"{}"


async def test_the_sweep_throws_away_what_expired_and_what_is_over_a_smaller_bound(
    client: "redis.Redis", valkey: ValkeyServer
) -> None:
    for n in range(20):
        store(client, entry(n, 1000, ttl_ms=1 if n % 2 else 60_000))
    await asyncio.to_thread(wait_until, lambda: len(entries(client)) == 10, 5, "their ends")
    lane = RedisBatcher(Redis.from_url(valkey.url))
    bounds = MemoryBounds()
    bounds.cache_bytes = 4000
    prune = Prune(lane, KEYS, queues=[], most_letters=1, most_bytes=1, bounds=bounds)
    await prune.evict_answers()
    await lane.close()
    assert len(entries(client)) == 4
    the_books_are_true(client)


acts = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.integers(0, 5), st.integers(1, 700),
                  st.sampled_from([1, 60_000])),
        st.tuples(st.just("hit"), st.integers(0, 5)),
        st.tuples(st.just("miss"), st.integers(0, 5)),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("drop"), st.integers(0, 5)),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts, st.integers(1000, 5000))
def test_after_any_acts_the_index_equals_the_answers_within_the_bound(
    client: "redis.Redis", done: list[tuple[Any, ...]], bound: int
) -> None:
    client.flushdb()
    for call, (act, n, *amounts) in enumerate(done):
        name = entry(n, 0).fingerprint
        if act == "store":
            store(client, entry(n, *amounts), bound=bound)
            assert counts(client).get("bytes", 0) <= bound
        elif act in ("hit", "miss"):
            found, missing = ([name], []) if act == "hit" else ([], [name])
            told = CacheCounts(len(found), len(missing), 0, 0, found, missing)
            script.run(client, cache_index.count_uses(KEYS, str(call), told))
        elif act == "drop":
            script.run(client, cache_index.drop(KEYS, [name]))
        else:
            client.delete(KEYS.cache(name))
            script.run(
                client, cache_index.count_uses(KEYS, str(call), CacheCounts(0, 1, 0, 0, [], [name]))
            )
    wait_until(lambda: all(client.pttl(KEYS.cache(n)) > 1000 for n in entries(client)), 5, "ends")
    assert not script.run(client, cache_index.evict(KEYS, bound))
    the_books_are_true(client)
    assert counts(client).get("bytes", 0) <= bound
