"""Buckets: grant or say how long, all buckets at once, counted once, in debt when too big."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shared import scripts
from shared.catalog import Pool
from shared.envelope import now_ms
from shared.keys import Keys
from shared.scripts import Draw
from tests.servers import ValkeyServer
from workers.lane import Lane
from workers.stages.bucket import MOMENT_MS, Bucket, Hold, Later

KEYS = Keys("t:")
SLOW = 1e-9  # tokens a millisecond: no time that a test takes refills anything
ALL_CHECKS = list(HealthCheck)


def draw(name: str, amount: float, capacity: float = 10, per_ms: float = SLOW) -> Draw:
    return Draw(KEYS.bucket("pool", "key0", name), per_ms, capacity, amount)


def level(valkey: ValkeyServer, name: str) -> float | None:
    with valkey.client() as client:
        found = client.hget(KEYS.bucket("pool", "key0", name), "level")
    return None if found is None else float(str(found))


def reserve(valkey: ValkeyServer, attempt: str, *draws: Draw) -> int:
    with valkey.client() as client:
        return scripts.run(client, scripts.reserve(KEYS, attempt=attempt, draws=draws))


def settle(valkey: ValkeyServer, attempt: str, draws: list[Draw], *used: float) -> bool:
    with valkey.client() as client:
        return scripts.run(client, scripts.settle(KEYS, attempt=attempt, draws=draws, used=used))


def test_a_new_bucket_is_full_and_empties(valkey: ValkeyServer) -> None:
    assert [reserve(valkey, f"a{n}", draw("rpm", 4)) for n in range(2)] == [0, 0]
    assert level(valkey, "rpm") == pytest.approx(2, abs=0.001)
    assert reserve(valkey, "a2", draw("rpm", 4)) > 0
    assert level(valkey, "rpm") == pytest.approx(2, abs=0.001)


def test_all_buckets_or_none(valkey: ValkeyServer) -> None:
    assert reserve(valkey, "a0", draw("tpm", 9)) == 0
    assert reserve(valkey, "a1", draw("rpm", 1), draw("tpm", 5)) > 0
    assert level(valkey, "rpm") is None
    assert reserve(valkey, "a2", draw("rpm", 1), draw("tpm", 1)) == 0
    assert level(valkey, "rpm") == pytest.approx(9, abs=0.001)


def test_a_reservation_that_is_sent_again_counts_once(valkey: ValkeyServer) -> None:
    for _ in range(3):
        assert reserve(valkey, "a0", draw("rpm", 6)) == 0
    assert level(valkey, "rpm") == pytest.approx(4, abs=0.001)


def test_a_refusal_that_is_sent_again_is_asked_anew(valkey: ValkeyServer) -> None:
    assert reserve(valkey, "a0", draw("rpm", 10)) == 0
    assert reserve(valkey, "a1", draw("rpm", 1)) > 0
    assert settle(valkey, "a0", [draw("rpm", 10)], 0)
    assert reserve(valkey, "a1", draw("rpm", 1)) == 0


def test_a_settlement_gives_back_what_was_not_used_once(valkey: ValkeyServer) -> None:
    draws = [draw("tpm", 8)]
    reserve(valkey, "a0", *draws)
    assert settle(valkey, "a0", draws, 3)
    assert level(valkey, "tpm") == pytest.approx(7, abs=0.001)
    assert not settle(valkey, "a0", draws, 3)
    assert level(valkey, "tpm") == pytest.approx(7, abs=0.001)


def test_a_settlement_takes_what_was_used_over_the_estimate(valkey: ValkeyServer) -> None:
    draws = [draw("tpm", 2)]
    reserve(valkey, "a0", *draws)
    assert settle(valkey, "a0", draws, 15)
    assert level(valkey, "tpm") == pytest.approx(-5, abs=0.001)


def test_an_amount_over_the_capacity_is_granted_by_a_full_bucket_and_leaves_a_debt(
    valkey: ValkeyServer,
) -> None:
    assert reserve(valkey, "small", draw("tpm", 1)) == 0
    assert reserve(valkey, "big", draw("tpm", 25)) > 0
    settle(valkey, "small", [draw("tpm", 1)], 0)
    assert reserve(valkey, "big", draw("tpm", 25)) == 0
    assert level(valkey, "tpm") == pytest.approx(-15, abs=0.001)


def test_the_wait_that_was_told_leads_to_the_grant_and_no_sooner(valkey: ValkeyServer) -> None:
    def fast(amount: float) -> list[Draw]:
        return [draw("rpm", 1, per_ms=0.1), draw("tpm", amount, capacity=100, per_ms=0.5)]

    assert reserve(valkey, "a0", *fast(100)) == 0
    wait_ms = reserve(valkey, "a1", *fast(60))
    assert 100 < wait_ms <= 120
    with valkey.client() as client:
        for name in ("rpm", "tpm"):  # the bucket as it will be then: its last visit lies back
            key = KEYS.bucket("pool", "key0", name)
            client.hincrbyfloat(key, "at_ms", -wait_ms)
    assert reserve(valkey, "a1", *fast(60)) == 0


def test_what_is_kept_on_the_server_has_a_lifetime(valkey: ValkeyServer) -> None:
    reserve(valkey, "a0", draw("rpm", 1))
    with valkey.client() as client:
        for key in (KEYS.hold("a0"), KEYS.bucket("pool", "key0", "rpm")):
            assert 0 < int(str(client.pttl(key))) <= 3_600_000


@given(
    capacities=st.tuples(st.integers(1, 50), st.integers(1, 500)),
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 80), st.integers(0, 800), st.booleans()),
        max_size=30,
    ),
)
@settings(max_examples=60, deadline=None, suppress_health_check=ALL_CHECKS)
def test_levels_are_those_of_a_model(
    valkey: ValkeyServer,
    capacities: tuple[int, int],
    steps: list[tuple[int, int, int, bool]],
) -> None:
    """Steps: attempt, amounts of both buckets, and whether it settles (at half) or reserves."""
    with valkey.client() as client:
        client.flushall()
        levels = list(map(float, capacities))
        holds: dict[int, list[Draw]] = {}
        for number, first, second, settles in steps:
            attempt, amounts = f"a{number}", [first, second]
            draws = [
                draw(f"m{i}", amount, capacity)
                for i, (amount, capacity) in enumerate(zip(amounts, capacities, strict=True))
            ]
            if settles:
                held = holds.pop(number, None)
                used = [d.amount / 2 for d in held or draws]
                command = scripts.settle(KEYS, attempt=attempt, draws=held or draws, used=used)
                assert scripts.run(client, command) == (held is not None)
                for i, d in enumerate(held or ()):
                    levels[i] = min(capacities[i], levels[i] + d.amount / 2)
                continue
            granted = number in holds or all(
                levels[i] >= min(amounts[i], capacities[i]) for i in range(2)
            )
            command_ = scripts.reserve(KEYS, attempt=attempt, draws=draws)
            assert (scripts.run(client, command_) == 0) == granted
            if granted and number not in holds:
                holds[number] = draws
                levels = [levels[i] - amounts[i] for i in range(2)]
        for i in range(2):
            found = client.hget(KEYS.bucket("pool", "key0", f"m{i}"), "level")
            if found is not None:
                assert float(str(found)) == pytest.approx(levels[i], abs=0.01)


# The stage over it.


@pytest.fixture
async def lane(valkey: ValkeyServer) -> AsyncIterator[Lane]:
    lane = Lane(Redis.from_url(valkey.url))
    yield lane
    await lane.close()


async def take(
    bucket: Bucket,
    pool: Pool,
    attempt: str,
    tokens: int = 1,
    output_tokens: int = 0,
    key: str = "key0",
) -> Hold | Later:
    return await bucket.reserve(
        attempt, pool, key, input_tokens=tokens, output_tokens=output_tokens, settles=True,
        rank="standard",
    )  # fmt: skip


async def test_a_pool_without_limits_asks_nothing_of_the_server(
    lane: Lane, valkey: ValkeyServer
) -> None:
    bucket = Bucket(lane, KEYS, now_ms)
    hold = await take(bucket, Pool(key="p/free"), "a0")
    assert isinstance(hold, Hold)
    await bucket.settle(hold, input_tokens=1, output_tokens=1)
    with valkey.client() as client:
        assert client.dbsize() == 0


async def test_jobs_that_must_wait_a_moment_all_get_their_turn(lane: Lane) -> None:
    bucket = Bucket(lane, KEYS, now_ms)
    pool = Pool(key="p/quick", rpm=6000, burst_s=0.05)  # 100 a second, 5 at once
    holds = await asyncio.gather(*(take(bucket, pool, f"a{n}") for n in range(40)))
    assert all(isinstance(hold, Hold) for hold in holds)


async def test_the_rate_is_kept_by_all_processes_together(valkey: ValkeyServer) -> None:
    pool = Pool(key="p/shared", rpm=6000, burst_s=0.01)  # 100 a second, 1 at once
    lanes = [Lane(Redis.from_url(valkey.url)) for _ in range(4)]
    began = asyncio.get_running_loop().time()
    await asyncio.gather(
        *(
            take(Bucket(lane, KEYS, now_ms), pool, f"{i}:{n}")
            for i, lane in enumerate(lanes)
            for n in range(10)
        )
    )
    took_s = asyncio.get_running_loop().time() - began
    for lane in lanes:
        await lane.close()
    assert took_s >= 0.38, "40 of 100 a second, one of them at once"


async def test_a_job_that_would_wait_longer_than_a_moment_is_told_when_to_come_back(
    lane: Lane,
) -> None:
    bucket = Bucket(lane, KEYS, now_ms)
    pool = Pool(key="p/slow", rpm=6)
    assert isinstance(await take(bucket, pool, "a0"), Hold)
    later = await take(bucket, pool, "a1")
    assert isinstance(later, Later)
    assert MOMENT_MS < later.wait_ms <= 10_000


async def test_jobs_that_are_turned_away_are_told_different_times(lane: Lane) -> None:
    bucket = Bucket(lane, KEYS, now_ms)
    pool = Pool(key="p/slow", rpm=6)
    assert isinstance(await take(bucket, pool, "a0"), Hold)
    told = [await take(bucket, pool, f"b{n}") for n in range(5)]
    waits = [later.wait_ms for later in told if isinstance(later, Later)]
    assert len(waits) == 5
    assert all(8000 < b - a < 12_000 for a, b in pairwise(waits)), waits


async def test_each_key_of_a_provider_has_buckets_of_its_own(lane: Lane) -> None:
    bucket = Bucket(lane, KEYS, now_ms)
    pool = Pool(key="p/slow", rpm=6)
    for key in ("key0", "key1"):
        hold = await take(bucket, pool, f"a:{key}", key=key)
        assert isinstance(hold, Hold)


async def test_a_settlement_frees_tokens_for_the_next(lane: Lane, valkey: ValkeyServer) -> None:
    bucket = Bucket(lane, KEYS, now_ms)
    pool = Pool(key="p/tokens", tpm=60, input_tpm=60, output_tpm=60, burst_s=10)  # 10 at once
    hold = await take(bucket, pool, "a0", 6, 4)
    assert isinstance(hold, Hold)
    await bucket.settle(hold, input_tokens=2, output_tokens=1)
    with valkey.client() as client:
        levels = {
            measure: float(str(client.hget(KEYS.bucket("p/tokens", "key0", measure), "level")))
            for measure in ("tpm", "input_tpm", "output_tpm")
        }
    assert levels == pytest.approx({"tpm": 7, "input_tpm": 8, "output_tpm": 9}, abs=0.1)
