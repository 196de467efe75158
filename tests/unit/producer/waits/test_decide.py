"""Which of several reasons is told, and what the calculation may never do."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.waits.callers import CallerFigures
from headgate.producer.waits.decide import OpenJob, waiting_for
from headgate.producer.waits.levels import (
    BucketLevel,
    GateState,
    LimitInForce,
    Load,
)
from headgate.producer.waits.pauses import Pause
from headgate.producer.waits.pools import PoolKey, WaitingPool, WaitingQueue
from headgate.producer.waits.view import InWaitingQueue, OnDueList, Seen
from headgate.shared.admission.breakers import ModelHealth
from headgate.shared.broker.living import LivingWorker
from headgate.shared.job.waiting_for import ms_of
from tests.support.rig import STANDARD
from tests.support.waiting_rooms import POOL, TICKET

NOW = 1_763_700_000_000
JOB = OpenJob("j", STANDARD, NOW - 60_000)
OPEN = GateState()
WORKER = LivingWorker(3, frozenset((STANDARD,)), frozenset(("openai",)))
DOWN = ModelHealth(
    "openai/gpt-4o-mini", "key0", "down", "open", 5, 5, None, 1.0, 30.0, True, "it is open",
    "timeout: no answer", NOW - 5_000,
)  # fmt: skip


def level(measure: str, limit: float, left: float) -> BucketLevel:
    return BucketLevel(measure, LimitInForce(limit, "catalog"), left, limit / 60, limit / 60)


def running(limit: float, n: int) -> BucketLevel:
    return BucketLevel("concurrent", LimitInForce(limit, "catalog"), running=n)


def pool(*levels: BucketLevel, gate: GateState = OPEN, n: int = 1) -> WaitingPool:
    queue = WaitingQueue(STANDARD, POOL, n, NOW, 1, Load(1, 100, 400), Load(1, 100, 400), NOW)
    return WaitingPool(POOL, [PoolKey("key0", levels, (), gate, 0)], (), [queue])


def seen(of: WaitingPool, ahead: int = 0, **others: object) -> Seen:
    place = InWaitingQueue(STANDARD, TICKET, ahead, 1)
    found = Seen(NOW, {"j": place}, {POOL: of}, CallerFigures(NOW, {}, {}), workers=[WORKER])
    return replace(found, **others)  # type: ignore[arg-type]  # fields of Seen


def test_the_first_of_several_reasons_is_told_and_then_the_next() -> None:
    busy = pool(level("rpm", 60, 0), gate=GateState(NOW + 9_000, "limited"))
    all_of_them = seen(
        busy,
        paused={f"queue/{STANDARD}": Pause(NOW - 1, "me@here")},
        workers=[],
        breakers={DOWN.model: [DOWN]},
    )
    kinds = []
    steps: list[dict[str, Any]] = [
        {},
        {"paused": {}},
        {"workers": [replace(WORKER, providers=frozenset())]},
        {"workers": [WORKER]},
        {"breakers": {}},
        {"pools": {POOL: pool(level("rpm", 60, 0))}},
        {"pools": {POOL: pool()}},
    ]
    for step in steps:
        all_of_them = replace(all_of_them, **step)
        found = waiting_for(JOB, all_of_them)
        assert found is not None
        kinds.append(found.kind)
    assert kinds == ["paused", "no_worker", "no_key", "model_down", "gate", "limit", "turn"]


def test_of_several_limits_the_one_that_takes_longest_is_told() -> None:
    found = waiting_for(JOB, seen(pool(level("rpm", 60, 0), level("tpm", 6000, 0), n=10), ahead=9))
    assert found is not None
    # 5,000 tokens at 100 a second; 10 requests at one a second.
    assert found.why == "tokens per minute, 6,000"
    assert (ms_of(found.until) or 0) - NOW == 50_000


def test_of_calls_at_one_time_nobody_knows_when_one_ends() -> None:
    found = waiting_for(JOB, seen(pool(running(4, 4))))
    assert found is not None
    assert (found.why, found.until) == ("calls at one time, 4", None)
    free = waiting_for(JOB, seen(pool(running(4, 3))))
    assert free is not None
    assert free.kind == "turn"


def test_a_forecast_past_the_deadline_says_so() -> None:
    late = seen(pool(level("rpm", 1, -1000)))
    ticket = replace(TICKET, deadline_ms=NOW + 60_000)
    late = replace(late, places={"j": InWaitingQueue(STANDARD, ticket, 0, 1)})
    found = waiting_for(JOB, late)
    assert found is not None
    assert ms_of(found.until) == NOW + 60_000
    assert found.help.endswith("its deadline comes before that")


def test_a_retry_of_a_model_that_is_down_waits_for_the_model() -> None:
    due = seen(pool(), places={"j": OnDueList(STANDARD, TICKET, NOW + 5_000)})
    found = waiting_for(JOB, replace(due, breakers={DOWN.model: [DOWN]}))
    assert found is not None
    assert (found.kind, found.why) == ("model_down", "last fault: timeout: no answer")
    assert ms_of(found.since) == NOW - 5_000
    half = replace(DOWN, key="key1", closed_to_all=False)
    found = waiting_for(JOB, replace(due, breakers={DOWN.model: [DOWN, half]}))
    assert found is not None
    assert found.kind == "due", "with one of its keys it may be asked"


def test_a_turn_comes_as_fast_as_the_calls_that_run_end() -> None:
    of = pool(n=100)
    of = replace(of, keys=[replace(of.keys[0], running=5)])
    healthy = replace(DOWN, state="healthy", closed_to_all=False, latency_ms=2_000.0)
    found = waiting_for(JOB, seen(of, ahead=49, breakers={DOWN.model: [healthy]}))
    assert found is not None
    assert (found.kind, found.why) == ("turn", "49 jobs are ahead of it")
    assert (ms_of(found.until) or 0) - NOW == 20_000
    unknown = waiting_for(JOB, seen(of, ahead=49))
    assert unknown is not None
    assert unknown.until is None


@given(
    st.integers(0, 10_000), st.floats(1, 1e6), st.floats(-1e9, 1e6),
    st.none() | st.integers(NOW - 10**6, NOW + 10**13), st.sampled_from(["limited", "money", "?"]),
)  # fmt: skip
def test_there_is_always_a_reason_and_no_forecast_lies_in_the_past(
    ahead: int, limit: float, left: float, until: int | None, why: str
) -> None:
    of = pool(level("rpm", limit, left), gate=GateState(until, why), n=ahead + 1)
    found = waiting_for(JOB, seen(of, ahead=ahead))
    assert found is not None
    assert found.in_words(NOW).startswith("waiting for ")
    assert found.until is None or (ms_of(found.until) or 0) >= NOW - 1
    assert "\n" not in found.in_words(NOW)


@pytest.mark.parametrize("queue", ["headgate.standard.fast", "their.queue"])
def test_a_worker_that_says_nothing_serves_every_queue(queue: str) -> None:
    assert seen(pool(), workers=[LivingWorker(0)]).serves(queue)
    assert not seen(pool(), workers=[]).serves(queue)
