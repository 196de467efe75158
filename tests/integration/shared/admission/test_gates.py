"""What a provider says of its limits shuts and slows a pool, and never lets more through."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headgate.shared.admission.grant import Elsewhere, Grant, Held, TooLarge, decode
from headgate.shared.admission.limits import ResumeOutcome, resume_command
from headgate.shared.broker import script
from headgate.shared.broker.figures import FAR_MS, LEAST_PACE, WAVE_MS
from headgate.workers.provider import Measure, RateSeen, Reset
from tests.support.governor_model import Books, Governor, Places, a_hold, capacity_and_rate
from tests.support.rig import STANDARD
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, TICKET

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
AMOUNTS = st.one_of(
    st.sampled_from([0.0, 1.0, 1e12]), st.floats(0, 1e12, allow_nan=False), st.floats(1, 9000)
)
MINUTES_MS = 60_000
A_SECOND = 1 / 1000


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Governor]:
    with valkey.client(decode_responses=False) as client:
        broker = Governor(client)
        broker.settle_down()
        yield broker
        assert Places.of(broker, [STANDARD]).faults == []


def empty(valkey: ValkeyServer) -> Governor:
    """Return a new broker, for each example of hypothesis."""
    with valkey.client(decode_responses=False) as client:
        client.flushall()
    broker = Governor(valkey.client(decode_responses=False))
    broker.settle_down()
    return broker


def drain(broker: Governor, want: int = 64) -> dict[str, Grant]:
    """All that may start now."""
    found: dict[str, Grant] = {}
    while jobs := broker.grants(want):
        found |= jobs
    return found


def gain(broker: Governor, rate: float, since_ms: float) -> float:
    """What a bucket of this rate (1/ms) may have gained in the time that the test took."""
    return rate * (broker.now_ms() - since_ms + 2)


# ---- gates


def test_a_refusal_that_names_its_time_shuts_the_pool_until_then(broker: Governor) -> None:
    broker.ask("a", "b")
    assert broker.take(1) == ["a"]
    before_ms = broker.now_ms()
    broker.observe("limited", wait_ms=MINUTES_MS)
    fetched = broker.fetch()
    assert fetched.taken == []
    assert fetched.next_due_ms is not None
    passed_ms = broker.now_ms() - before_ms + 1
    assert MINUTES_MS - passed_ms <= fetched.next_due_ms <= MINUTES_MS
    assert isinstance(broker.reserve("a", "2", TICKET), int)
    broker.advance(MINUTES_MS / 2)
    assert broker.take() == []
    broker.advance(MINUTES_MS / 2)
    assert broker.take() == ["b"]


def test_a_shorter_refusal_never_opens_a_longer_one(broker: Governor) -> None:
    broker.observe("money", wait_ms=-1)
    broker.observe("limited", wait_ms=10)
    assert broker.gate()["why"] == "money"
    assert float(broker.gate()["until"]) > 4e12


@pytest.mark.parametrize("wait_ms", [-1, 20_000])
def test_those_who_wait_do_not_rush_through_an_opened_gate(broker: Governor, wait_ms: int) -> None:
    limit = "rpm=600 burst_s=10"
    broker.limit(**{f"pool/{POOL}": limit})
    began_ms = broker.now_ms()
    broker.fill_up(POOL)
    broker.ask(*(f"j{n}" for n in range(400)))
    capacity, rate = capacity_and_rate(limit, "rpm", f"pool/{POOL}#key0")
    count = len(drain(broker))
    assert capacity - 2 <= count <= capacity + 2 + gain(broker, rate, began_ms)
    broker.advance(MINUTES_MS)
    shut_at_ms = broker.now_ms()
    broker.observe("limited", wait_ms=wait_ms)
    assert broker.bucket(f"pool/{POOL}", "key0")["rpm.level"] <= 0
    shut_ms = max(wait_ms, 250)
    broker.advance(shut_ms + 50)
    count = len(drain(broker))
    most = min(capacity, (shut_ms + 1000) * rate) + 1
    assert count <= most + gain(broker, rate, shut_at_ms)


def test_out_of_money_lets_one_probe_through_every_five_minutes(broker: Governor) -> None:
    broker.ask(*(f"j{n}" for n in range(9)))
    broker.observe("money", wait_ms=-1)
    assert drain(broker) == {}
    for n in range(3):
        broker.advance(300_000)
        assert len(drain(broker)) == 1, n
    broker.advance(90 * 86_400_000)
    assert len(drain(broker)) == 1


def test_a_probe_that_succeeds_opens_the_pool_and_an_older_answer_does_not(
    broker: Governor,
) -> None:
    broker.ask(*(f"j{n}" for n in range(9)))
    [before] = broker.holds(1).values()
    broker.advance(1000)
    broker.observe("money", wait_ms=-1)
    broker.observe("ok", granted_at_ms=before.granted_at_ms - 1000)
    assert drain(broker) == {}
    broker.advance(300_000)
    [probe] = drain(broker).values()
    broker.observe("ok", granted_at_ms=a_hold(probe).granted_at_ms)
    assert len(drain(broker)) == 7


def test_out_of_money_a_second_time_only_a_new_answer_opens_the_pool(broker: Governor) -> None:
    broker.ask("a", "b", "c")
    broker.observe("money", wait_ms=broker.now_ms() + 60_000)
    broker.advance(61_000)
    [old] = broker.holds(1).values()
    broker.advance(1000)
    broker.observe("money", wait_ms=-1)
    broker.observe("ok", granted_at_ms=old.granted_at_ms - 1000)
    assert drain(broker) == {}


def test_who_may_fall_back_is_not_stuck_behind_those_who_may_not(broker: Governor) -> None:
    broker.ask(*(f"stay{n}" for n in range(20)), replaceable=False)
    broker.ask(*(f"go{n}" for n in range(5)), replaceable=True)
    broker.observe("money", wait_ms=-1)
    ways = {job: type(grant) for job, grant in drain(broker).items()}
    assert ways == {f"go{n}": Elsewhere for n in range(5)}


def test_a_date_on_which_there_is_money_again_opens_the_pool(broker: Governor) -> None:
    broker.ask("a", "b")
    broker.observe("money", wait_ms=broker.now_ms() + 100_000)
    assert drain(broker) == {}
    broker.advance(100_001)
    assert len(drain(broker)) == 2


def test_resume_opens_a_pool_that_is_out_of_money(broker: Governor) -> None:
    broker.ask("a", "b")
    broker.observe("money", wait_ms=-1)
    assert drain(broker) == {}
    broker.resume(f"pool/{POOL}")
    assert len(drain(broker)) == 2


HOUR_MS, FOR_EVER_MS = 3_600_000, 99_999_999_999_000


@pytest.mark.parametrize("kind", ["limited", "slow", "flex"])
def test_after_a_wait_that_was_cut_one_request_tests_the_pool_and_the_others_wait(
    broker: Governor, kind: str
) -> None:
    broker.ask(*(f"j{n}" for n in range(20)))
    [under_way] = broker.holds(1).values()
    broker.advance(1000)
    broker.observe(kind, wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS)
    broker.observe("ok", granted_at_ms=under_way.granted_at_ms - 1000)
    assert drain(broker) == {}, "an answer to an older request opens nothing"
    broker.advance(HOUR_MS)
    [test] = drain(broker).values()
    fetched = broker.fetch()
    assert fetched.next_due_ms is not None
    assert 0 < fetched.next_due_ms <= 60_000, "no news of a test for a minute: another may go"
    broker.advance(60_000)
    assert len(drain(broker)) == 1
    broker.observe("ok", granted_at_ms=a_hold(test).granted_at_ms)
    assert len(drain(broker)) == 17
    assert not {"until", "asked", "probe_at", "shut_at"} & broker.gate().keys()


def test_what_the_provider_says_of_a_test_holds(broker: Governor) -> None:
    broker.ask(*(f"j{n}" for n in range(9)))
    broker.observe("limited", wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS)
    broker.advance(HOUR_MS)
    assert len(drain(broker)) == 1
    broker.observe("limited", wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS)
    broker.advance(HOUR_MS - MINUTES_MS)
    assert drain(broker) == {}, "still the same: another hour"
    broker.advance(MINUTES_MS)
    assert len(drain(broker)) == 1
    broker.observe("limited", wait_ms=MINUTES_MS)
    assert drain(broker) == {}
    broker.advance(MINUTES_MS)
    assert len(drain(broker)) == 7, "a wait that it keeps to opens the pool for all"


def test_a_pool_that_is_tested_may_run_out_of_money_and_back(broker: Governor) -> None:
    broker.ask(*(f"j{n}" for n in range(9)))
    broker.observe("limited", wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS)
    broker.observe("money", wait_ms=-1)
    assert broker.gate()["why"] == "money"
    broker.observe("limited", wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS, granted_at_ms=1)
    assert broker.gate()["why"] == "money"
    broker.advance(300_000)
    [test] = drain(broker).values()
    broker.observe("ok", granted_at_ms=a_hold(test).granted_at_ms)
    assert len(drain(broker)) == 8


def test_who_may_fall_back_leaves_a_pool_whose_provider_wants_a_longer_wait_than_they_have(
    broker: Governor,
) -> None:
    broker.ask("stay", replaceable=False)
    broker.ask("go", replaceable=True)
    broker.observe("limited", wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS)
    assert {job: type(grant) for job, grant in drain(broker).items()} == {"go": Elsewhere}


def test_too_much_load_shuts_no_gate_however_long_a_wait_it_names(broker: Governor) -> None:
    broker.ask("a", "b")
    broker.observe("overloaded", wait_ms=HOUR_MS, asked_ms=FOR_EVER_MS)
    assert len(drain(broker)) >= 1
    assert "until" not in broker.gate()


@pytest.mark.parametrize(
    ("kind", "wait_ms", "asked_ms"),
    [
        ("limited", 60_000, -1), ("slow", 60_000, -1), ("money", -1, -1),
        ("limited", HOUR_MS, FOR_EVER_MS),
    ],
)  # fmt: skip
def test_resume_opens_whatever_gate_is_shut_and_tells_of_it(
    broker: Governor, kind: str, wait_ms: int, asked_ms: int
) -> None:
    broker.ask("a", "b")
    began_ms = broker.now_ms()
    broker.observe(kind, wait_ms=wait_ms, asked_ms=asked_ms)
    assert drain(broker) == {}
    outcome = script.run(broker.client, resume_command(broker.keys, f"pool/{POOL}"))
    [gate] = outcome.opened
    assert (outcome.was_paused, gate.pool, gate.key, gate.why) == (False, POOL, "key0", kind)
    if kind == "money":
        assert gate.until_ms >= FAR_MS
    else:
        assert wait_ms <= gate.until_ms - began_ms <= wait_ms + 60_000
    assert (gate.asked_ms is None) == (asked_ms < 0)
    assert len(drain(broker)) == 2
    again = script.run(broker.client, resume_command(broker.keys, f"pool/{POOL}"))
    assert again == ResumeOutcome(was_paused=False, opened=[])


def test_no_room_in_the_flex_tier_is_no_matter_of_the_others(broker: Governor) -> None:
    flex = f"{POOL}~flex"
    broker.ask("flexible", pool=flex)
    broker.ask("usual")
    broker.observe("flex", pool=flex)
    assert list(drain(broker)) == ["usual"]
    broker.advance(30_000)
    assert list(drain(broker)) == ["flexible"]


def test_too_much_load_lowers_the_calls_at_once_and_they_grow_back_in_a_minute(
    broker: Governor,
) -> None:
    broker.ask(*(f"j{n}" for n in range(300)))
    running = list(broker.grants(100))
    assert len(running) == 100
    began_ms = broker.now_ms()
    broker.observe("overloaded", wait_ms=5000)
    assert broker.gate()["ceiling"] == "70.000"
    assert broker.take(100) == []
    broker.ack(*running[:50])
    more = len(broker.take(100))
    assert 20 <= more <= 20 + gain(broker, A_SECOND, began_ms) + 1
    for s, least in ((20, 90), (20, 110)):
        broker.advance(s * 1000)
        broker.take(100)
        now = broker.bucket(f"pool/{POOL}", "key0")["running"]
        assert least <= now <= least + gain(broker, A_SECOND, began_ms) + 1, s
    broker.advance(20_000)
    assert len(broker.take(100)) == 100


@given(seen=st.lists(st.tuples(st.sampled_from(["overloaded", "slow"]), st.integers(0, 3000))))
@FEW
def test_pace_and_ceiling_fall_once_a_second_at_most_and_never_to_nothing(
    valkey: ValkeyServer, seen: list[tuple[str, int]]
) -> None:
    broker = empty(valkey)
    broker.ask(*(f"j{n}" for n in range(10)))
    assert len(broker.take()) == 10
    lowered: dict[str, float] = {}
    pace, ceiling = 1.0, 10.0
    for kind, ms in seen:
        broker.advance(ms)
        before_ms = broker.now_ms() + broker.passed_ms
        broker.observe(kind)
        after_ms = broker.now_ms() + broker.passed_ms
        gate = broker.gate()
        found = float(gate.get("pace", 1)), float(gate.get("ceiling", 10))
        if (pace, ceiling) != found:
            assert after_ms - lowered.get(kind, -1e12) > 990
            lowered[kind] = before_ms
        assert found[0] >= max(LEAST_PACE, pace / 2 - 0.001)
        assert found[1] >= max(1, ceiling * 0.7 - 1)
        pace, ceiling = found


def test_a_pace_that_was_halved_grows_by_half_in_each_quarter_of_an_hour(
    broker: Governor,
) -> None:
    broker.limit(**{f"pool/{POOL}": "tpm=60000 burst_s=2"})
    broker.ask(*(f"j{n}" for n in range(40)), input_tokens=499, output_tokens=1)
    broker.grants(1)
    broker.observe("slow")

    def gained() -> float:
        """Tokens that come in a second."""
        name = broker.keys.bucket(f"pool/{POOL}", "key0")
        broker.client.hset(name, "tpm.level", -90_000)  # so low that it gains all the time
        before = broker.bucket(f"pool/{POOL}", "key0")
        broker.advance(10_000)
        broker.observe("ok", RateSeen("tpm", 60_000, 60_000, 1))
        after = broker.bucket(f"pool/{POOL}", "key0")
        passed_ms = after["tpm.at"] - before["tpm.at"] + 10_000
        return (after["tpm.level"] - before["tpm.level"]) / passed_ms * 1000

    assert gained() == pytest.approx(500, rel=0.1)
    for quarters, tokens in ((1, 750), (2, 998)):
        paced_at = float(broker.gate()["pace_at"])
        broker.client.hset(broker.keys.gate(POOL, "key0"), "pace_at", paced_at - 900_000)
        assert gained() == pytest.approx(tokens, rel=0.1), quarters


# ---- what headers tell


@given(
    limit=AMOUNTS, remaining=AMOUNTS, grain=st.sampled_from([0.0, 1.0, 1000.0]),
    reset=st.none() | st.builds(
        Reset, st.floats(0, 1e6), st.sampled_from([0.001, 1.0, 2.0]), st.booleans()
    ),
    total=st.none() | st.integers(0, 10**12), ago_ms=st.integers(-3_600_000, 3_600_000),
    kind=st.sampled_from(["ok", "limited", "slow", "overloaded"]),
    measure=st.sampled_from(["rpm", "tpm", "input_tpm", "output_tpm"]),
)  # fmt: skip
@FEW
def test_no_header_of_a_provider_raises_a_level_where_a_burst_is_set(
    valkey: ValkeyServer, limit: float, remaining: float, grain: float, total: int | None,
    ago_ms: int, kind: str, measure: Measure, reset: Reset | None,
) -> None:  # fmt: skip
    assume(limit >= 1 and remaining <= limit)  # others are passed over where headers are read
    broker = empty(valkey)
    scope = f"pool/{POOL}"
    limits = {scope: "rpm=600 tpm=60000 input_tpm=60000 output_tpm=60000 burst_s=10"}
    broker.limit(**limits)
    broker.ask(*(f"j{n}" for n in range(30)), input_tokens=100, output_tokens=10)
    before_ms = broker.now_ms()
    broker.grants(3)
    before = broker.bucket(scope, "key0")
    told = RateSeen(measure, limit, remaining, grain, total, reset)
    broker.observe(kind, told, granted_at_ms=broker.now_ms() - ago_ms)
    after = broker.bucket(scope, "key0")
    for name in ("rpm", "tpm", "input_tpm", "output_tpm"):
        _, rate = capacity_and_rate(limits[scope], name, f"{scope}#key0")
        gained = rate * (broker.now_ms() - before_ms + 2)
        assert after[f"{name}.level"] <= before[f"{name}.level"] + gained + 0.01
    # And nobody has to wait longer for that than a bucket needs to be filled from empty.
    assert after[f"{measure}.level"] >= -2 * max(limit, 60_000) - 1000


def test_a_limit_that_was_lowered_counts_at_once_and_a_raised_one_is_no_gift(
    broker: Governor,
) -> None:
    scope = f"pool/{POOL}"
    broker.limit(**{scope: "rpm=6000 burst_s=1"})
    broker.ask(*(f"j{n}" for n in range(300)))
    drain(broker, 50)
    for told, limit in ((600, "rpm=600"), (1e12, "rpm=6000")):
        broker.observe("ok", RateSeen("rpm", told, told, 1))
        broker.advance(MINUTES_MS)
        capacity, rate = capacity_and_rate(limit, "rpm", f"{scope}#key0")
        broker.ask(*(f"j{int(capacity)}-{n}" for n in range(300)))
        before_ms = broker.now_ms()
        count = len(broker.take(200))
        assert int(capacity) <= count <= capacity + 1 + gain(broker, rate, before_ms)


def test_what_strangers_take_of_the_same_key_is_taken_from_the_level(broker: Governor) -> None:
    scope = f"pool/{POOL}"
    broker.limit(**{scope: "rpm=600 burst_s=20"})
    broker.fill_up(POOL)
    broker.ask(*(f"j{n}" for n in range(300)))
    [grant] = broker.holds(1).values()
    assert broker.bucket(scope, "key0")["rpm.level"] > 90
    told = RateSeen("rpm", 600, 520, 1, grant.totals["rpm"])
    broker.observe("limited", told, wait_ms=0, granted_at_ms=grant.granted_at_ms)
    assert broker.bucket(scope, "key0")["rpm.level"] <= 0


# ---- buckets as deep as headers show


def full_minute(total: int | None, remaining: int = 599, **others: Any) -> RateSeen:
    """Ten requests a second, of a bucket that holds a minute and fills continuously."""
    return RateSeen("rpm", 600, remaining, 1, total, Reset((600 - remaining) / 10, 0.001, **others))


def test_what_headers_show_may_be_used_at_once_less_what_is_on_its_way(broker: Governor) -> None:
    broker.limit(**{f"pool/{POOL}": "rpm=600"})
    broker.ask(*(f"j{n}" for n in range(700)))
    [first] = broker.holds(1).values()
    began_ms, passed_ms = broker.now_ms(), broker.passed_ms
    broker.observe("ok", full_minute(first.totals["rpm"]), granted_at_ms=first.granted_at_ms)
    waves = []
    for n in range(12):
        waves.append(len(drain(broker)))
        if n == 0:
            late = gain(broker, 10 * A_SECOND, began_ms)
        broker.advance(WAVE_MS)
    took_s = (broker.now_ms() - began_ms + broker.passed_ms - passed_ms) / 1000
    # Half a second may be late, and two seconds of the rate may be on their way.
    assert 560 <= sum(waves) <= 600 + 10 * took_s
    assert waves[0] <= 10 + late, "a second is known to pass, more has to be proven"
    # The same headers once more change nothing: those granted since are on their way.
    broker.observe("ok", full_minute(first.totals["rpm"]), granted_at_ms=first.granted_at_ms)
    began_ms = broker.now_ms()
    broker.advance(WAVE_MS)
    assert len(drain(broker)) <= 20 + gain(broker, 10 * A_SECOND, began_ms)


def test_a_bucket_is_a_second_deep_again_when_nobody_told_of_it_for_two_minutes(
    broker: Governor,
) -> None:
    broker.limit(**{f"pool/{POOL}": "rpm=600"})
    broker.ask(*(f"j{n}" for n in range(900)))
    [first] = broker.holds(1).values()
    broker.observe("ok", full_minute(first.totals["rpm"]), granted_at_ms=first.granted_at_ms)
    broker.advance(121_000)
    began_ms = broker.now_ms()
    assert len(drain(broker)) <= 5 + (broker.now_ms() - began_ms) / 100 + 1


def test_a_refusal_ends_a_burst_and_what_is_never_used_is_learned(broker: Governor) -> None:
    """The headers tell of a minute, and the provider cuts bursts after a second."""
    scope = f"pool/{POOL}"
    broker.limit(**{scope: "rpm=600"})
    broker.ask(*(f"j{n}" for n in range(900)))
    [first] = broker.holds(1).values()
    broker.observe("ok", full_minute(first.totals["rpm"]), granted_at_ms=first.granted_at_ms)
    [second] = broker.holds(1).values()
    told = full_minute(second.totals["rpm"], remaining=590)
    began_ms = broker.now_ms()
    broker.observe("limited", told, wait_ms=0, granted_at_ms=second.granted_at_ms)
    assert len(drain(broker)) <= 1 + (broker.now_ms() - began_ms) / 100 + 1
    broker.advance(30_000)
    [third] = broker.holds(1).values()
    told = full_minute(third.totals["rpm"], remaining=598)
    began_ms = broker.now_ms()
    broker.observe("ok", told, granted_at_ms=third.granted_at_ms)
    assert len(drain(broker)) <= 10 + (broker.now_ms() - began_ms) / 100 + 1


def test_a_bucket_of_one_second_never_reads_as_a_minute_that_others_have_used(
    broker: Governor,
) -> None:
    scope = f"pool/{POOL}"
    broker.limit(**{scope: "rpm=6000 tpm=600000"})
    broker.ask(*(f"j{n}" for n in range(50)))
    for _ in range(20):
        broker.advance(300)
        [grant] = broker.holds(1).values()
        told = RateSeen("tpm", 600_000, 9_500, 1, grant.totals["tpm"], Reset(0.05, 0.001))
        broker.observe("ok", told, granted_at_ms=grant.granted_at_ms, tokens=grant.tokens)
    assert broker.bucket(scope, "key0")["tpm.level"] > 1000
    assert 9_500 <= broker.bucket(scope, "key0")["tpm.top"] <= 10_000


def test_what_was_learned_of_a_bucket_is_forgotten_when_its_limit_changes(
    broker: Governor,
) -> None:
    scope = f"pool/{POOL}"
    broker.limit(**{scope: "rpm=6000"})
    broker.ask("a", "b")
    [grant] = broker.holds(1).values()
    told = RateSeen("rpm", 6_000, 5_000, 1, grant.totals["rpm"], Reset(10, 0.001))
    broker.observe("limited", told, granted_at_ms=grant.granted_at_ms)
    assert broker.bucket(scope, "key0")["rpm.floor"] == 4_999
    told = RateSeen("rpm", 3_000, 40, 1, grant.totals["rpm"], Reset(0.2, 0.001))
    broker.observe("ok", told, granted_at_ms=grant.granted_at_ms)
    found = broker.bucket(scope, "key0")
    assert found["rpm.top"] == 41
    assert found["rpm.floor"] == 0


def test_a_burst_that_an_operator_has_set_holds_until_it_is_unset(broker: Governor) -> None:
    scope = f"pool/{POOL}"
    broker.ask(*(f"j{n}" for n in range(9)))
    for limits, floor in (("rpm=600 burst_s=1", 590), ("rpm=600", 0), ("rpm=600 burst_s=2", 580)):
        broker.limit(**{scope: limits})
        broker.advance(1000)
        [grant] = broker.holds(1).values()
        told = full_minute(grant.totals["rpm"])
        broker.observe("ok", told, granted_at_ms=grant.granted_at_ms)
        assert broker.bucket(scope, "key0")["rpm.floor"] == floor


# ---- sizes


@pytest.mark.parametrize("scope", [f"pool/{POOL}", "provider/openai", "global", "tenant/acme"])
@pytest.mark.parametrize("measure", ["tpm", "input_tpm", "output_tpm"])
def test_a_request_over_a_minute_s_tokens_is_handed_out_at_once_and_takes_nothing(
    broker: Governor, scope: str, measure: str
) -> None:
    broker.limit(**{scope: f"{measure}=1000"})
    broker.ask("large", input_tokens=1001, output_tokens=1001)
    broker.ask("small", input_tokens=10, output_tokens=10)
    grants = drain(broker)
    assert {i: type(grant) for i, grant in grants.items()} == {"large": TooLarge, "small": Held}
    assert (
        broker.reserve("small", "2", replace(TICKET, input_tokens=2000, output_tokens=2000)) == -1
    )


@pytest.mark.parametrize("kind", ["money", "limited"])
def test_a_request_over_a_minutes_tokens_is_refused_also_at_a_shut_gate(
    broker: Governor, kind: str
) -> None:
    broker.limit(**{f"pool/{POOL}": "tpm=1000"})
    broker.observe(kind, wait_ms=-1 if kind == "money" else 60_000)
    broker.ask("large", input_tokens=1001)
    assert [type(grant) for grant in drain(broker).values()] == [TooLarge]


@given(
    limit=st.sampled_from([1, 2, 59, 61, 600, 10**6, 10**12]),
    burst_s=st.sampled_from([0.001, 0.5, 1, 60, 3600]),
    measure=st.sampled_from(["rpm", "tpm", "output_tpm"]),
    scope=st.sampled_from([f"pool/{POOL}", "provider/openai", "global", "tenant/acme"]),
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=12),
    steps=st.lists(st.sampled_from([1, 100, 1000, 60_000, 3_600_000]), max_size=8),
)
@FEW
def test_limits_of_any_size_are_kept_and_reached(
    valkey: ValkeyServer, limit: int, burst_s: float, measure: str, scope: str,
    sizes: list[int], steps: list[int],
) -> None:  # fmt: skip
    broker = empty(valkey)
    limits = {scope: f"{measure}={limit} burst_s={burst_s}"}
    broker.limit(**limits)
    books = Books(limits)
    fits = [size for size in sizes if measure == "rpm" or size <= limit]
    for n, size in enumerate(sizes):
        broker.ask(f"j{n}", input_tokens=0, output_tokens=size)
    held = 0

    def grant_all() -> None:
        nonlocal held
        for grant in drain(broker).values():
            assert isinstance(grant, Held | TooLarge)
            if isinstance(grant, Held):
                held += 1
                books.granted(grant, broker.passed_ms)

    rounding_ms = math.ceil(0.001 * MINUTES_MS / limit)  # levels are kept to a thousandth
    grant_all()
    for ms in steps:
        broker.advance(ms)
        grant_all()
    assert books.over() == []
    # Nobody waits longer than the reply says.
    for _ in range(len(fits)):
        fetched = broker.fetch(1)
        for job in fetched.taken:
            grant = decode(job.grant)
            if isinstance(grant, Held):
                held += 1
                books.granted(grant, broker.passed_ms)
        if not fetched.taken and fetched.next_due_ms is not None:
            wait_ms = fetched.next_due_ms
            assert wait_ms <= 61_000 + max(sizes) / limit * MINUTES_MS
            broker.advance(wait_ms + 1 + rounding_ms)
            before = held
            grant_all()
            assert held > before or held == len(fits)
    assert held == len(fits)
    assert books.over() == []
