"""Results in Redis are bounded by bytes: the oldest go first, but none that somebody waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from headgate.shared.broker import jobs, script
from headgate.shared.broker.figures import RESULT_OVERHEAD
from headgate.shared.broker.keys import Keys
from tests.support.child import wait_until
from tests.support.servers import ValkeyServer

KEYS = Keys("acme:")
SIZE = 1000
EACH = SIZE + RESULT_OVERHEAD


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client(decode_responses=False) as client:
        yield client


def publish(
    client: redis.Redis, *ids: str, bound: int = 1 << 30, group: str = "", ttl_s: int = 60
) -> list[int]:
    record = b"r" * SIZE
    return script.run_all(
        client,
        [
            jobs.publish(
                KEYS, job_id=one, record=record, ttl_s=ttl_s, results_bytes=bound, group=group
            )
            for one in ids
        ],
    )


def there(client: redis.Redis, *ids: str) -> list[str]:
    return [one for one in ids if client.exists(KEYS.result(one))]


def counted(client: redis.Redis, name: str) -> int:
    return int(client.hget(KEYS.results_counts(), name) or 0)


def names(first: int, end: int) -> list[str]:
    return [f"job|{n}" for n in range(first, end)]


def test_the_oldest_results_go_when_all_take_more_than_the_bound(client: redis.Redis) -> None:
    publish(client, *names(0, 20), bound=10 * EACH)
    assert there(client, *names(0, 20)) == names(10, 20)
    assert counted(client, "bytes") == 10 * EACH
    assert counted(client, "evicted") == 10
    assert client.llen(KEYS.results()) == 10


def test_a_smaller_bound_is_reached_by_maintenance(client: redis.Redis) -> None:
    publish(client, *names(0, 500))
    assert script.run(client, jobs.evict_results(KEYS, 100 * EACH))
    assert script.run(client, jobs.evict_results(KEYS, 100 * EACH))
    assert not script.run(client, jobs.evict_results(KEYS, 100 * EACH))
    assert there(client, *names(0, 500)) == names(400, 500)
    assert counted(client, "bytes") == 100 * EACH


def test_results_that_have_expired_leave_the_books(client: redis.Redis) -> None:
    publish(client, *names(0, 3), ttl_s=1)
    publish(client, *names(3, 5))
    wait_until(lambda: there(client, *names(0, 3)) == [], 30, "the results to expire")
    assert not script.run(client, jobs.evict_results(KEYS, 1 << 30))
    assert counted(client, "bytes") == 2 * EACH
    assert there(client, *names(3, 5)) == names(3, 5)


def test_a_result_that_a_program_listens_for_stays(client: redis.Redis) -> None:
    with client.pubsub() as listener:  # type: ignore[no-untyped-call]
        listener.subscribe(KEYS.result("waited"))
        listener.get_message(timeout=30)
        publish(client, "waited", *names(0, 20), bound=10 * EACH)
        assert there(client, "waited", *names(0, 20)) == ["waited", *names(11, 20)]
        listener.unsubscribe()
        wait_until(
            lambda: client.pubsub_numsub(KEYS.result("waited"))[0][1] == 0, 30, "it to leave"
        )
    publish(client, *names(20, 40), bound=10 * EACH)
    assert there(client, "waited") == []


@pytest.mark.parametrize("needed_by", [KEYS.chord("g"), KEYS.group("g")])
def test_a_part_of_a_chord_stays_until_the_chord_has_ended(
    client: redis.Redis, needed_by: str
) -> None:
    client.set(needed_by, 3)
    publish(client, "part", group="g")
    publish(client, *names(0, 40), bound=10 * EACH)
    assert there(client, "part") == ["part"]
    client.delete(needed_by)
    publish(client, *names(40, 60), bound=10 * EACH)
    assert there(client, "part") == []


def test_what_is_needed_takes_twice_the_bound_at_most(client: redis.Redis) -> None:
    client.set(KEYS.chord("g"), 100)
    publish(client, *names(0, 100), group="g", bound=10 * EACH)
    assert len(there(client, *names(0, 100))) == 20
    assert counted(client, "bytes") == 20 * EACH


def test_a_result_that_is_published_twice_is_counted_out_again(client: redis.Redis) -> None:
    publish(client, "twice", "twice", bound=10 * EACH)
    assert counted(client, "bytes") == 2 * EACH
    publish(client, *names(0, 10), bound=10 * EACH)
    assert counted(client, "bytes") == 10 * EACH


def test_broken_books_lose_no_result(client: redis.Redis) -> None:
    client.set(KEYS.results(), "no list")
    assert publish(client, "one") == [-1]
    assert there(client, "one") == ["one"]


def test_a_full_redis_takes_results_in_the_place_of_the_oldest(
    valkey_factory: Callable[..., ValkeyServer],
) -> None:
    with valkey_factory().client(decode_responses=False) as client:
        publish(client, *names(0, 100))
        client.config_set("maxmemory", "1mb")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("more", "x")
        publish(client, *names(100, 130))
        assert there(client, *names(0, 130)) == names(60, 130)
        assert counted(client, "bytes") == 70 * EACH
        # Also where there is nothing left to remove.
        client.delete(KEYS.results(), *map(KEYS.result, names(0, 130)))
        publish(client, "last")
        assert there(client, "last") == ["last"]


def test_a_full_redis_keeps_no_answer_for_the_cache(
    valkey_factory: Callable[..., ValkeyServer],
) -> None:
    answer = jobs.CacheWrite("f", b"answer", 60_000, "acme", "gpt-4o")
    command = jobs.publish(
        KEYS, job_id="one", record=b"{}", ttl_s=60, answers=[answer], cache_bytes=1 << 20
    )
    with valkey_factory().client(decode_responses=False) as client:
        client.config_set("maxmemory", "1mb")
        assert script.run(client, command) == 0
        assert there(client, "one") == ["one"]
        assert not client.exists(KEYS.cache("f"))
        client.config_set("maxmemory", "0")
        assert script.run(client, command) == 0
        assert client.exists(KEYS.cache("f"))


def test_streamed_pieces_go_minutes_after_the_end(client: redis.Redis) -> None:
    script.run(client, jobs.deliver(KEYS, "s", fence=1, n=1, text="a", ttl_ms=3_600_000))
    script.run(client, jobs.publish(KEYS, job_id="s", record=b"{}", ttl_s=60, streamed=True))
    assert 0 < client.pttl(KEYS.deltas("s")) <= 300_000


def test_a_full_redis_drops_streamed_pieces(valkey_factory: Callable[..., ValkeyServer]) -> None:
    piece = jobs.deliver(KEYS, "s", fence=1, n=1, text="a", ttl_ms=60_000)
    with valkey_factory().client(decode_responses=False) as client:
        client.config_set("maxmemory", "1mb")
        assert script.run(client, piece) == -1
        client.config_set("maxmemory", "0")
        assert [script.run(client, piece), script.run(client, piece)] == [1, 0]
