"""`headgate limits` on buckets, gates and waiting queues that were written by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headgate.producer.admin.limits_report import report
from headgate.producer.admin.limits_rows import LimitsReport, PoolRow
from headgate.producer.installation import Installation, open_installation
from headgate.producer.waits.view import InQueue, InWaitingQueue, Leased, view
from headgate.shared.broker import script
from headgate.shared.errors import WrongUse
from headgate.shared.settings import Settings
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, TICKET, Rooms


@pytest.fixture
def at(valkey: ValkeyServer, tmp_path: Path) -> Iterator[Installation]:
    opened = open_installation(Settings(home=tmp_path, redis_url=valkey.url, key_prefix="own:"))
    yield opened
    opened.close()


@pytest.fixture
def hand(at: Installation) -> Rooms:
    return Rooms(at.redis, at.keys)


def row(found: LimitsReport, pool: str = POOL) -> PoolRow:
    [only] = [one for one in found.pools if one.pool == pool]
    return only


def test_without_jobs_and_limits_the_report_is_empty(at: Installation) -> None:
    assert report(at) == LimitsReport([], [], [], [], {}, [])


def test_jobs_are_counted_by_priority_and_tenant_with_the_age_of_the_oldest(
    at: Installation, hand: Rooms
) -> None:
    hand.wait("a1", "a2", age_ms=60_000)
    hand.wait("b1", queue=BULK, tenant="b & c", age_ms=600_000)
    hand.wait("u1", "u2", "u3", queue=URGENT, user="somebody")
    result = row(report(at))
    assert result.waiting == 6
    assert result.by_priority == {"standard": 2, "bulk": 1, "interactive": 3}
    assert [(one.tenant, one.waiting) for one in result.by_tenant] == [("acme", 5), ("b & c", 1)]
    assert result.oldest_age_s == pytest.approx(600, abs=60)
    assert result.drain_s is None
    assert row(report(at, tenant="b & c")).waiting == 1


def test_of_many_tenants_the_ten_with_most_jobs_are_named(at: Installation, hand: Rooms) -> None:
    for n in range(1, 16):
        hand.wait(*(f"{n}-{i}" for i in range(n)), tenant=f"t{n}")
    result = row(report(at))
    assert [one.tenant for one in result.by_tenant] == [f"t{n}" for n in range(15, 5, -1)]
    assert (result.other_tenants, result.waiting_of_others) == (5, 15)


def test_thousands_of_user_queues_are_counted_in_pages(at: Installation, hand: Rooms) -> None:
    with at.redis.pipeline(transaction=False) as pipe:
        for n in range(2500):
            pipe.zadd(at.keys.user_queue(STANDARD, POOL, f"t{n % 3}", f"u{n}"), {f"{n}|x": 1})
            pipe.zadd(at.keys.waiting_queue(STANDARD, POOL, "ages"), {f"t{n % 3}|u{n}": n})
        pipe.hset(at.keys.waiting_queues(), f"{STANDARD} {POOL}", "2500")
        pipe.execute()
    result = row(report(at))
    assert [one.waiting for one in result.by_tenant] == [834, 833, 833]


def test_the_time_to_drain_is_that_of_the_tightest_limit(at: Installation, hand: Rooms) -> None:
    hand.limit(f"pool/{POOL}", "rpm=6000 tpm=60000")
    hand.wait(*(f"j{n}" for n in range(100)))
    began_ms = hand.now_ms()
    hand.fill(f"pool/{POOL}", "key0", rpm=50, tpm=0)
    result = row(report(at))
    passed_s = (hand.now_ms() - began_ms) / 1000
    # 100 jobs of 500 tokens each, at 998 tokens a second.
    assert result.drain_s is not None
    assert 50 - passed_s - 1 <= result.drain_s <= 51
    hand.limit("keys/openai", "n=2")
    both_s = row(report(at)).drain_s
    passed_s = (hand.now_ms() - began_ms) / 1000
    assert both_s is not None
    assert 25 - passed_s - 2.5 <= both_s <= 27.5
    hand.limit("tenant/acme", "rpm=10")
    hand.fill("tenant/acme", rpm=0)
    result = row(report(at))
    assert result.by_tenant[0].drain_s == pytest.approx(600, rel=0.02)
    assert result.drain_s == pytest.approx(600, rel=0.02)


def test_the_time_to_drain_obeys_the_limits_of_users_and_budgets_that_are_spent(
    at: Installation, hand: Rooms
) -> None:
    """A batch of 2,000 jobs of a user with 10 a minute was said to drain in 15 minutes."""
    hand.limit(f"pool/{POOL}", "rpm=300 tpm=20000000")
    hand.fill(f"pool/{POOL}", "key0", rpm=0, tpm=0)
    hand.limit("user/acme/u1", "rpm=10")
    hand.fill("user/acme/u1", rpm=0)
    ids = [f"j{n}" for n in range(1980)]
    hand.wait(*ids, queue=BULK, user="u1", priority="bulk")
    hours = 3600
    result = row(report(at))
    assert result.drain_s == pytest.approx(3.3 * hours, rel=0.01)
    assert result.by_tenant[0].drain_s == result.drain_s
    at.redis.hset(at.keys.budgets(), "tenant/acme", "usd_per_day=0.001")
    day = f"{datetime.fromtimestamp(hand.now_ms() / 1000, UTC):%Y%m%d}"
    at.redis.hset(at.keys.budget("tenant/acme", day), "spent", 1_012_000_000)
    stopped = row(report(at)).drain_s
    left_s = (86_400_000 - hand.now_ms() % 86_400_000) / 1000
    assert stopped is not None
    assert stopped > left_s, "nothing runs until midnight"
    at.redis.sadd(at.keys.paused(), "tenant/acme")
    assert row(report(at)).drain_s is None, "nobody knows when it is resumed"


def test_each_bucket_is_shown_with_its_limit_its_fill_and_who_set_it(
    at: Installation, hand: Rooms
) -> None:
    hand.limit(f"pool/{POOL}", "rpm=600 tpm=60000 concurrent=4")
    hand.limit("provider/openai", "rpm=1000")
    hand.limit("global", "rpm=100")
    at.redis.hset(at.keys.overrides(), "global", "rpm=60")
    hand.fill(f"pool/{POOL}", "key0", running=3, rpm=2.5)
    at.redis.hset(at.keys.bucket(f"pool/{POOL}", "key0"), "tpm.seen", "30000")
    hand.fill("global", rpm=30)
    found = {(one.scope, one.measure): one for one in report(at).buckets}
    assert found["global", "rpm"].whence == "set"
    assert found["global", "rpm"].limit == 60
    assert 0.45 < (found["global", "rpm"].fill or 0) < 1
    assert found["provider/openai", "rpm"].fill is None
    of_pool = {measure: one for (scope, measure), one in found.items() if scope == f"pool/{POOL}"}
    assert of_pool["tpm"].whence == "provider"
    assert of_pool["tpm"].limit == 30_000
    assert (of_pool["concurrent"].running, of_pool["concurrent"].left) == (3, 1)
    assert of_pool["rpm"].key == "key0"


def test_gates_are_shown_with_their_reason_and_their_time(at: Installation, hand: Rooms) -> None:
    hand.limit("keys/openai", "n=2")
    hand.limit(f"pool/{POOL}", "rpm=6000")
    began_ms = hand.now_ms()
    hand.shut(30_000, "limited")
    hand.wait("j")
    [result] = report(at).gates
    assert (result.pool, result.key, result.state, result.why) == (POOL, "key0", "shut", "limited")
    assert row(report(at)).drain_s == pytest.approx(0, abs=1)
    hand.shut(60_000, "limited", key="key1")
    drain_s = row(report(at)).drain_s
    passed_s = (hand.now_ms() - began_ms) / 1000
    assert drain_s is not None
    assert 28 - passed_s <= drain_s <= 32
    forever = 4_102_444_800_000
    for key in ("key0", "key1"):
        at.redis.hset(at.keys.gate(POOL, key), mapping={"until": forever, "why": "money"})
    assert [one.until for one in report(at).gates] == [None, None]
    assert row(report(at)).drain_s is None


def test_running_jobs_are_shown_with_what_they_hold(at: Installation) -> None:
    for n in range(3):
        grant = f"held|{POOL}|gpt-4o-mini|key0|o|0|100|400|acme||||0||||||"
        at.redis.hset(at.keys.holds(), f"j{n}", grant)
    result = row(report(at))
    assert (result.running, result.held_tokens, result.waiting) == (3, 1500, 0)


def test_a_tenant_is_shown_with_its_users_and_their_tiers(at: Installation, hand: Rooms) -> None:
    hand.limit("tenant/*", "rpm=600")
    hand.limit("user/acme/u%2F1", "rpm=60")
    hand.limit("user/other/u", "rpm=60")
    hand.limit("tier/free", "rpm=10")
    hand.limit("tier/free/gpt-4o", "rpm=2")
    hand.fill("tier/free/acme/u2", rpm=5)
    hand.fill("tier/free/acme/u2/gpt-4o", rpm=1)
    hand.fill("tier/free/other/u", rpm=5)
    found = {one.scope: one.limit for one in report(at, tenant="acme").buckets}
    assert found == {
        "tenant/acme": 600, "user/acme/u%2F1": 60, "tier/free/acme/u2": 10,
        "tier/free/acme/u2/gpt-4o": 2,
    }  # fmt: skip


def test_only_users_who_are_locked_out_now_are_shown(at: Installation, hand: Rooms) -> None:
    now = hand.now_ms()
    for tenant, user, until in (("a%20b", "u%2F1", now + 60_000), ("acme", "u2", now - 1)):
        at.redis.hset(at.keys.lockout(tenant, user), mapping={"until": until, "count": 2})
    at.redis.hset(at.keys.lockout("acme", "u3"), "refused", f"{now}")
    [result] = report(at).lockouts or []
    assert (result.tenant, result.user, result.count) == ("a b", "u/1", 2)
    assert report(at, tenant="a b").lockouts == [result]
    assert report(at, tenant="acme").lockouts == []


def test_messages_that_no_worker_has_fetched_are_counted_by_queue(at: Installation) -> None:
    at.redis.lpush(at.keys.queue(BULK), "one", "two")
    assert report(at).unsorted == {BULK: 2}


def test_a_pool_that_is_unknown_is_refused_with_a_hint(at: Installation) -> None:
    with pytest.raises(WrongUse, match="did you mean openai/gpt-4o-mini"):
        report(at, pool="gpt-4o-mini")


def test_a_job_is_found_in_its_waiting_queue_with_its_pool(at: Installation, hand: Rooms) -> None:
    hand.wait("first", "second", "third")
    at.redis.hset(at.keys.tickets(), "moved", TICKET.encode())
    at.redis.hset(at.keys.messages(), "moved", f'{STANDARD}\n{{"hg":"moved","body":1}}')
    line = at.keys.user_queue(STANDARD, POOL, "acme", "")
    at.redis.zadd(line, {f"moved|{TICKET.encode()}": 9e15})
    at.redis.hset(at.keys.messages(), "leased", f'{STANDARD}\n{{"hg":"leased","body":1}}')
    at.redis.hset(at.keys.owners(), "leased", "w1#1")
    at.redis.sadd(at.keys.present(), "queued")
    ids = ["second", "leased", "moved", "nowhere", "queued"]
    seen = script.run(at.redis, view(at.keys, ids=ids))
    waiting = {i: one for i, one in seen.places.items() if isinstance(one, InWaitingQueue)}
    assert {job_id: one.ahead for job_id, one in waiting.items()} == {"second": 1, "moved": 3}
    assert (seen.places["leased"], seen.places["queued"]) == (Leased(), InQueue())
    assert "nowhere" not in seen.places
    assert set(seen.pools) == {POOL}
