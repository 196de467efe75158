"""The turn order: user queues, handicaps, deadlines, shares of callers, and who is blocked."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headgate.shared.admission.grant import Held, Late
from tests.support.governor_model import Governor, Places, jain
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL

HANDICAPS_MS = (300_000, 900_000)
ALL = (URGENT, STANDARD, BULK)
PRIORITIES = dict(zip(ALL, ("interactive", "standard", "bulk"), strict=True))
HANDICAP_MS = dict(zip(PRIORITIES.values(), (0, *HANDICAPS_MS), strict=True))


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Governor]:
    with valkey.client(decode_responses=False) as client:
        broker = Governor(client)
        broker.settle_down()
        yield broker
        assert Places.of(broker, ALL).faults == []


def order_of(broker: Governor, queues: Sequence[str] = ALL, **others: Any) -> list[str]:
    """Return the jobs in the order of their grants, fetched one by one."""
    order: list[str] = []
    while jobs := broker.take(1, queues=queues, **others):
        order += jobs
    return order


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    jobs=st.lists(
        st.tuples(
            st.sampled_from(ALL), st.integers(0, 1_200_000), st.sampled_from([30_000, 400_000, 0])
        ),
        max_size=14,
    )
)
def test_one_caller_s_jobs_come_by_their_rank_over_all_queues(
    valkey: ValkeyServer, jobs: list[tuple[str, int, int]]
) -> None:
    """Arrival and head start, or a minute before the deadline where that is earlier."""
    with valkey.client(decode_responses=False) as client:
        client.flushall()
        broker = Governor(client)
        broker.settle_down()
        now_ms, ranks = broker.now_ms(), {}
        for n, (queue, age_ms, left_ms) in enumerate(jobs):
            deadline_ms = now_ms + left_ms if left_ms else 4_000_000_000_000
            priority = PRIORITIES[queue]
            age_ms += n  # no two alike
            broker.ask(
                f"j{n}", queue=queue, priority=priority, age_ms=age_ms, deadline_ms=deadline_ms
            )
            rank_ms = now_ms - age_ms + HANDICAP_MS[priority]
            ranks[f"j{n}"] = min(rank_ms, deadline_ms - 60_000)
        asked_ms = broker.now_ms() - now_ms  # tickets are written some ms after `now_ms` was read
        broker.take(0, queues=ALL)
        assert Places.of(broker, ALL).faults == []
        order = order_of(broker, handicaps_ms=HANDICAPS_MS)
        assert sorted(order) == sorted(ranks)
        for first, second in pairwise(order):
            assert ranks[first] <= ranks[second] + asked_ms + 1, (order, ranks)


def test_interactive_goes_first_but_for_a_bulk_job_past_its_bound(broker: Governor) -> None:
    broker.ask("old", queue=BULK, priority="bulk", tenant="b", age_ms=901_000)
    broker.ask("young", queue=BULK, priority="bulk", tenant="c", age_ms=890_000)
    broker.ask("usual", queue=STANDARD, age_ms=290_000)
    broker.ask("urgent", queue=URGENT, priority="interactive")
    assert order_of(broker) == ["old", "urgent", "young", "usual"]


def test_a_bulk_job_is_granted_at_the_latest_when_its_head_start_is_over(
    broker: Governor,
) -> None:
    """A new interactive job comes for every grant."""
    before_ms = broker.now_ms()
    broker.ask("bulk", queue=BULK, priority="bulk", tenant="b")
    after_ms = passed_over_ms = broker.now_ms()
    for n in range(2000):
        now_ms = broker.now_ms()
        broker.ask(f"i{n}", queue=URGENT, priority="interactive")
        if broker.take(1, queues=ALL, handicaps_ms=(100, 200)) == ["bulk"]:
            break
        passed_over_ms = now_ms
    assert passed_over_ms <= after_ms + 201, "a job of that moment or later went first"
    assert broker.now_ms() >= before_ms + 200


def test_a_deadline_in_a_minute_goes_before_all_who_can_wait(broker: Governor) -> None:
    soon_ms = broker.now_ms() + 30_000
    broker.ask("first", queue=STANDARD)
    broker.ask("soon", queue=STANDARD, deadline_ms=soon_ms)
    broker.ask("urgent", queue=URGENT, priority="interactive")
    assert order_of(broker) == ["soon", "urgent", "first"]


def test_a_job_past_its_deadline_is_handed_out_to_end_and_takes_nothing(broker: Governor) -> None:
    broker.limit(**{f"pool/{POOL}": "rpm=1"})
    broker.ask("late", deadline_ms=broker.now_ms() - 1)
    broker.ask("first", "second")
    grants = broker.grants(3)
    assert {i: type(grant) for i, grant in grants.items()} == {"late": Late, "first": Held}
    broker.ask("dies", deadline_ms=broker.now_ms() + 30)
    while not (gone := broker.grants(3)):
        pass
    assert {i: type(grant) for i, grant in gone.items()} == {"dies": Late}


# ---- shares


def tokens_by(
    broker: Governor, names: Mapping[str, str], calls: int, want: int = 7
) -> Counter[str]:
    """Tokens granted to each name (of a job id's first word) over so many round trips."""
    found: Counter[str] = Counter()
    for _ in range(calls):
        for job_id, grant in broker.holds(want).items():
            found[names[job_id.split("-")[0]]] += grant.input_tokens + grant.output_tokens
    return found


def backlog(broker: Governor, tenant: str, jobs: int, tokens: int, **fields: Any) -> None:
    """Send so many jobs of this size for a tenant."""
    name = fields.pop("name", tenant)
    ids = [f"{name}-{n}" for n in range(jobs)]
    broker.ask(*ids, tenant=tenant, input_tokens=tokens, output_tokens=0, **fields)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(50, 1500), min_size=2, max_size=6),
    want=st.sampled_from([1, 7, 64]),
)
def test_tenants_share_alike_by_tokens_however_large_their_jobs(
    valkey: ValkeyServer, sizes: list[int], want: int
) -> None:
    with valkey.client(decode_responses=False) as client:
        client.flushall()
        broker = Governor(client)
        broker.settle_down()
        names = {f"t{n}": f"t{n}" for n in range(len(sizes))}
        for n, size in enumerate(sizes):
            backlog(broker, f"t{n}", 200_000 // size + 100, size)
        while broker.fetch(0).more:
            pass
        served = Counter(dict.fromkeys(names, 0))
        while sum(served.values()) < 120_000 * len(sizes):
            served += tokens_by(broker, names, 1, want)
        # One job more or less is what turns can be off by.
        assert max(served.values()) - min(served.values()) <= 2 * max(sizes)
        assert jain(served.values()) >= 0.99


def test_weights_of_1_2_4_are_kept_within_3_percent(broker: Governor) -> None:
    broker.limit(**{f"tenant/w{weight}": f"weight={weight}" for weight in (1, 2, 4)})
    for weight, size in ((1, 900), (2, 100), (4, 400)):
        backlog(broker, f"w{weight}", 3000, size)
    while broker.fetch(0).more:
        pass
    served = tokens_by(broker, {name: name for name in ("w1", "w2", "w4")}, 150)
    total = sum(served.values())
    for weight in (1, 2, 4):
        assert served[f"w{weight}"] / total == pytest.approx(weight / 7, rel=0.03)


def test_users_of_a_tenant_share_alike_and_a_tenant_gains_nothing_by_having_many(
    broker: Governor,
) -> None:
    for n in range(8):
        backlog(broker, "many", 400, 100 + 50 * n, user=f"u{n}", name=f"m{n}")
    backlog(broker, "one", 2000, 250, user="solo")
    while broker.fetch(0).more:
        pass
    names = {f"m{n}": f"u{n}" for n in range(8)} | {"one": "one"}
    served = tokens_by(broker, names, 150)
    many = [amount for name, amount in served.items() if name != "one"]
    assert served["one"] == pytest.approx(sum(many), rel=0.02)
    assert jain(many) >= 0.99


def test_a_late_tenant_gets_its_share_at_once_and_no_more(broker: Governor) -> None:
    backlog(broker, "early", 2000, 100)
    tokens_by(broker, {"early": "early"}, 100)
    backlog(broker, "late", 500, 100)
    served = tokens_by(broker, {"early": "early", "late": "late"}, 30, want=4)
    assert abs(served["early"] - served["late"]) <= 200


def test_a_tenant_that_leaves_and_comes_back_gains_nothing(broker: Governor) -> None:
    backlog(broker, "stays", 1000, 100)
    served: Counter[str] = Counter()
    names = {"stays": "stays", "comes": "comes"}
    for n in range(60):
        backlog(broker, "comes", 2, 300, name=f"comes-{n}")
        served += tokens_by(broker, names, 1, want=4)
    assert served["comes"] <= served["stays"] * 1.05 + 600


# ---- who is blocked


@pytest.mark.parametrize("come_back", [False, True])
def test_ten_thousand_blocked_tenants_keep_nobody_from_a_grant(
    broker: Governor, come_back: bool
) -> None:
    """64 are passed over in a call; `come_back`: all are tried again between any two calls."""
    broker.limit(**{"tenant/*": "concurrent=1", "tenant/zz": "weight=1"})
    with broker.client.pipeline(transaction=False) as pipe:
        for n in range(10_000):
            pipe.hset(broker.keys.bucket(f"tenant/t{n}"), "running", 1)
        pipe.execute()
    for n in range(10_000):
        broker.ask(f"j{n}", tenant=f"t{n}")
    while broker.client.exists(broker.keys.queue(STANDARD)):
        broker.fetch(0)

    def calls_until(job_id: str) -> int:
        parked = broker.keys.waiting_queue(STANDARD, POOL, "parked")
        for calls in range(1, 400):
            if broker.take(1) == [job_id]:
                return calls
            broker.client.zinterstore(parked, {parked: 0.0 if come_back else 1.0})
        raise AssertionError(f"{job_id} was not granted in 400 calls")

    broker.ask("free", tenant="zz")
    calls = [calls_until("free")]
    for name in ("again", "and-again"):
        broker.ask(name, tenant="zz")
        calls.append(calls_until(name))
    broker.client.flushall()  # 10,000 tenants are too many to be looked through afterwards
    assert calls[0] <= 160
    assert max(calls[1:]) <= 3


def test_blocked_tenants_come_back_when_their_time_has_come(broker: Governor) -> None:
    broker.limit(**{"tenant/*": "rpm=1 burst_s=60"})
    for tenant in ("x", "y"):
        broker.ask(f"{tenant}1", f"{tenant}2", f"{tenant}3", tenant=tenant)
    before_ms = broker.now_ms()
    assert sorted(broker.take()) == ["x1", "y1"]
    fetched = broker.fetch()
    assert fetched.taken == []
    assert fetched.next_due_ms is not None
    passed_ms = broker.now_ms() - before_ms + 1
    assert 60_000 - passed_ms <= fetched.next_due_ms <= 60_000
    broker.advance(60_000)
    assert sorted(broker.take()) == ["x2", "y2"]


def test_a_user_who_is_blocked_holds_up_no_other_of_the_tenant(broker: Governor) -> None:
    broker.limit(**{"tier/pro": "rpm=1 burst_s=60"})
    for user in ("u", "v", "w"):
        broker.ask(f"{user}1", f"{user}2", user=user, tier="pro")
    assert sorted(broker.take()) == ["u1", "v1", "w1"]
    broker.ask("x1", user="x", tier="pro")
    assert broker.take() == ["x1"]
    broker.advance(60_000)
    assert sorted(broker.take()) == ["u2", "v2", "w2"]


@pytest.mark.parametrize("limit", ["tenant/acme", "user/acme/u", "tier/pro"])
@pytest.mark.parametrize("ends_by", ["ack", "settle", "restore", "lapse", "defer"])
def test_the_call_of_a_blocked_caller_that_ends_makes_room_at_once(
    broker: Governor, limit: str, ends_by: str
) -> None:
    broker.limit(**{limit: "concurrent=1"})
    broker.ask("one", "two", user="u", tier="pro")
    grants = broker.holds()
    assert list(grants) == ["one"]
    assert broker.take() == []
    match ends_by:
        case "ack":
            broker.ack("one")
        case "settle":
            assert broker.settle("one", grants["one"], (1, 1))
        case "restore":
            broker.restore("one")
        case "lapse":
            broker.settle_down()
            broker.lapse("one")
        case _:
            assert broker.defer("one", 60_000)
    assert broker.client.llen(broker.keys.wake(STANDARD)) == 1
    assert len(broker.take()) == 1


@pytest.mark.parametrize("member", [f"pool/{POOL}", "tenant/acme", f"queue/{STANDARD}"])
def test_what_is_paused_waits_and_goes_on_where_it_stood(broker: Governor, member: str) -> None:
    broker.ask("a", "b", "c")
    assert broker.take(1) == ["a"]
    broker.client.sadd(broker.keys.paused(), member)
    broker.ask("d")
    broker.ask("other", tenant="other")
    assert broker.take() == (["other"] if member.startswith("tenant") else [])
    broker.resume(member)
    assert [job for job in broker.take() if job != "other"] == ["b", "c", "d"]


def test_a_tenant_whose_paused_jobs_have_all_ended_goes_on_with_new_ones(
    broker: Governor,
) -> None:
    broker.client.sadd(broker.keys.paused(), "tenant/acme")
    broker.ask("dies", deadline_ms=broker.now_ms() + 60)
    while not (gone := broker.grants()):
        pass
    assert [type(grant) for grant in gone.values()] == [Late]
    broker.ack("dies")
    broker.resume("tenant/acme")
    broker.ask("new")
    assert broker.take() == ["new"]


def test_a_job_whose_silent_worker_took_its_lease_again_is_not_started_twice(
    broker: Governor,
) -> None:
    broker.limit(**{f"pool/{POOL}": "rpm=1"})
    broker.ask("a")
    assert broker.take(1, owner="silent") == ["a"]
    broker.lapse("a")
    assert broker.take(1, owner="other") == [], "it waits in its room again"
    assert broker.renew("a", owner="silent").lost == []
    broker.advance(120_000)
    assert broker.take(1, owner="other") == []
    broker.ack("a", owner="silent")
    assert not broker.client.hlen(broker.keys.messages())
