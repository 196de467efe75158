"""What a provider refuses is known to all workers before they ask again; and what an operator says
is in force at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.governor import KEYS, MODEL, POOL, THIRD, THIRD_POOL, Open, World, limits, world

__all__ = ["world"]

LATENCY = "--latency-ms=50"
FAST = {"max_attempts": 10, "backoff_s": 0.05, "backoff_max_s": 0.2}


def arrivals(here: World, since_s: float, model: str = MODEL) -> list[float]:
    """Seconds after that moment at which requests arrived at the provider, refused ones too."""
    return [c.at_s - since_s for c in here.calls() if c.at_s > since_s and c.model == model]


def first_arrival(here: World) -> float:
    """The moment at which the first request arrived; the provider logs it when it has ended."""
    here.wait(lambda: arrivals(here, 0), "the first call to be logged")
    return arrivals(here, 0)[0]


def gate(here: World, pool: str = POOL) -> dict[str, Any]:
    """The gate as `headgate limits` shows it; nothing where it is open."""
    shown = here.command("limits", "--json").document["gates"]
    return next((one for one in shown if one["pool"] == pool), {})


def stopped(here: World, words: tuple[str, ...], others: int = 0) -> None:
    """After this command nothing arrives any more but requests of jobs that workers had by then.

    A busy machine may send those late. `others`: how many more may arrive.
    """
    here.command(*words)
    held, at_s = here.held(), time.time()
    time.sleep(1)
    here.wait(lambda: here.held() == 0, f"{held} running jobs to end")
    late = [round(after, 2) for after in arrivals(here, at_s)]
    assert len(late) <= held + others, (words, held, late)


def going(here: World, words: tuple[str, ...]) -> None:
    """Within a second after this command requests arrive again."""
    here.command(*words)
    at_s = time.time()
    here.wait(lambda: arrivals(here, at_s), f"{words} to be in force", 1)


@pytest.mark.slow
def test_a_429_with_retry_after_shuts_the_pool_for_all_workers(world: Open) -> None:
    here = world(LATENCY, catalog=limits(rpm=600), workers=2)
    here.warm()
    here.fails("429:retry-after=2", times=1)
    [first] = here.submit(1)
    told_s = first_arrival(here)
    place = KEYS.gate(POOL, "key0")
    here.wait(lambda: here.redis.hget(place, "why") == "limited", "the gate to shut")
    ids = [first, *here.submit(15)]
    here.until_ended(ids)
    after = arrivals(here, told_s)
    assert after[0] >= 2.0, after[:5]
    for number, at_s in enumerate(after, start=1):  # ten a second, and half a second's at once
        assert number <= 6 + 10 * (at_s - 2), f"those who waited do not stampede: {after}"
    assert here.client.result(first).attempts == 2
    assert {here.client.result(one).attempts for one in ids[1:]} == {1}


@pytest.mark.slow
def test_a_retry_after_far_away_is_cut_and_logged_and_one_request_tests_the_pool(
    world: Open,
) -> None:
    here = world("--latency-ms=700", "--latency-sigma=0", workers=2, retry_after_max_s=8)
    here.warm()
    here.fails("429:retry-after=99999999999", times=1)
    [first] = here.submit(1)
    here.wait(lambda: here.redis.hexists(KEYS.gate(POOL, "key0"), "asked"), "the gate to shut")
    shown = gate(here)
    told_s = first_arrival(here)
    ids = [first, *here.submit(15)]
    assert (shown["state"], shown["why"]) == ("shut", "limited")
    assert shown["until"] < shown["asked_until"]
    here.until_ended(ids)
    assert here.statuses(ids) == {"succeeded": 16}
    test, *others = arrivals(here, told_s)
    assert test >= 8
    assert others[0] >= test + 0.7, "the others wait for the answer to the test"
    logs = "".join(worker.log() for worker in here.workers)
    assert logs.count("retry-after: '99999999999' asks for a wait of 99999999999 s") == 1
    assert "cut to 8 s (HEADGATE_RETRY_AFTER_MAX_S); then one call tests the pool" in logs


@pytest.mark.slow
def test_resume_opens_a_pool_that_its_provider_shut_and_says_what_it_did(world: Open) -> None:
    here = world(LATENCY)
    here.warm()
    here.fails("429:retry-after=epoch+999999999", times=1)
    [first] = here.submit(1)
    here.wait(lambda: here.redis.hexists(KEYS.gate(POOL, "key0"), "asked"), "the gate to shut")
    ids = [first, *here.submit(5)]
    here.until_in_line(6)
    opened = here.command("resume", "pool", POOL, "--json").document
    assert (opened["changed"], opened["gates_opened"]) == (False, 1)
    [one] = opened["gates"]
    assert (one["pool"], one["key"], one["why"]) == (POOL, "key0", "limited")
    assert one["until"] < one["asked_until"]
    here.until_ended(ids)
    assert here.statuses(ids) == {"succeeded": 6}, "also the job that was refused"
    said = here.command("resume", "pool", POOL).out
    assert said.strip() == f"pool {POOL} was not paused, and no gate of it was shut"


@pytest.mark.slow
def test_a_529_lowers_calls_at_once_and_they_grow_again(world: Open) -> None:
    here = world(  # calls take so long that a busy machine has many under way, too
        "--latency-ms=1500", catalog="", workers=2, concurrency=20, breaker_failures=0, **FAST
    )
    here.warm("claude-sonnet-5-5")
    ids = here.submit(120, model=THIRD)
    here.wait(lambda: here.simulator.stats()["open_now"] >= 30, "many calls at once")
    here.fails("529", times=10)
    key = KEYS.gate(THIRD_POOL, "key0")
    here.wait(lambda: here.redis.hexists(key, "ceiling"), "a ceiling")
    here.works()
    ceiling = float(here.redis.hget(key, "ceiling") or 0)
    assert ceiling <= 0.7 * 40, "at most seven tenths of the 40 that two workers had under way"
    # Also those that were granted before and are not sent yet.
    here.wait(
        lambda: here.held() <= (gate(here, THIRD_POOL)["ceiling"] or 40), "fewer calls at once"
    )
    here.tell("_reset", {})
    shown = gate(here, THIRD_POOL)
    assert shown["until"] is None, "their load is none of our limits: the pool stays open"
    most = here.simulator.stats()["open_most"]
    grown = gate(here, THIRD_POOL)["ceiling"]  # it grows by the clock, however slow this machine is
    assert grown is None or most <= grown, (most, grown)
    here.wait(lambda: gate(here, THIRD_POOL)["ceiling"] != shown["ceiling"], "more calls again")
    here.until_ended(ids)
    assert here.statuses(ids) == {"succeeded": 120}


@pytest.mark.long
def test_slow_down_halves_the_rate_and_not_the_calls(world: Open) -> None:
    here = world(LATENCY, catalog=limits(tpm=600_000), **FAST)
    here.fails("slow_down", times=1)
    ids = here.submit(20)
    here.until_ended(ids)
    assert 0.4 <= gate(here)["pace"] <= 0.6
    assert here.statuses(ids) == {"succeeded": 20}


def test_out_of_money_shuts_the_pool_until_an_operator_opens_it(world: Open) -> None:
    here = world(LATENCY, workers=2)
    here.warm()
    here.fails("quota", times=1, match="poor")
    [poor] = here.submit(1, prompt="poor")
    here.until_ended([poor])
    error = here.client.result(poor).error
    assert error is not None
    assert error.code == "provider_quota"
    helped = here.submit(5, fallback=[THIRD])
    waiting = here.submit(20)
    here.until_ended(helped)
    for one in helped:
        result = here.client.result(one)
        assert (result.model_used, result.fallback, result.attempts) == (THIRD, True, 1)
    here.until_in_line(20)
    here.until_deferred(waiting[0])
    assert here.client.result(waiting[0]).retry_at is None, "nobody knows when"
    assert gate(here)["why"] == "money"
    assert arrivals(here, 0)[1:] == [], "only the first was asked for"
    here.command("resume", "pool", POOL)
    here.until_ended(waiting)
    assert here.statuses(waiting) == {"succeeded": 20}


def test_a_flex_refusal_stays_with_that_tier(world: Open) -> None:
    here = world(LATENCY, **FAST)
    here.fails("flex", match="patient")
    patient = here.submit(
        3, prompt="patient", params={"max_tokens": 5, "service_tier": "flex"}
    )  # fmt: skip
    here.wait(lambda: here.simulator.stats()["faults"], "the refusal")
    others = here.submit(10)
    here.until_ended(others)
    assert here.statuses(others) == {"succeeded": 10}
    assert here.ended(patient) == 0


@pytest.mark.slow
def test_pause_and_resume_of_pool_tenant_and_queue_are_in_force_within_a_second(
    world: Open,
) -> None:
    here = world(LATENCY, "--rpm=1500", catalog=limits(rpm=1200), workers=2)
    here.warm()
    here.submit(600, tenant="acme")
    here.until_accepted(5)
    for words in (("pool", POOL), ("tenant", "acme"), ("queue", "headgate.standard.fast")):
        stopped(here, ("pause", *words))
        assert here.in_line() > 0
        going(here, ("resume", *words))


@pytest.mark.slow
def test_a_change_of_limits_is_in_force_within_a_second(world: Open) -> None:
    here = world(LATENCY, "--rpm=1500", catalog=limits(rpm=1), workers=2)
    here.warm()
    file = here.folder / "catalog.toml"
    here.submit(500)
    here.wait(lambda: arrivals(here, 0), "the first")
    changes: tuple[tuple[Callable[[], object], tuple[str, ...], bool], ...] = (
        (lambda: 0, ("limits", "set", f"pool/{POOL}", "rpm=1200"), True),
        (lambda: 0, ("limits", "unset", f"pool/{POOL}"), False),
        (lambda: file.write_text(limits(rpm=1200)), ("catalog", "reload"), True),
    )
    for change, words, is_more in changes:
        change()
        if is_more:
            going(here, words)
        else:
            stopped(here, words, others=1)  # one a minute
    read_by_all = lambda: all("is in force" in worker.log() for worker in here.workers)  # noqa: E731
    here.wait(read_by_all, "each worker to have read the new catalog")


@pytest.mark.long
def test_a_new_model_of_a_reloaded_catalog_is_known_to_all_workers_within_a_second(
    world: Open,
) -> None:
    here = world(LATENCY, workers=2)
    model = (
        '[models."house-model"]\nprovider = "openai"\nclass = "fast"\ncontext_tokens = 9000\n'
        'max_output_tokens = 100\nsource = "a test"\nchecked = 2026-11-21\n'
    )
    (here.folder / "catalog.toml").write_text(model)
    here.command("catalog", "reload")
    known = lambda: all("is in force" in worker.log() for worker in here.workers)  # noqa: E731
    here.wait(known, "all to have read the catalog", 1.5)
    ids = here.submit(40, model="house-model")
    here.until_ended(ids)
    assert here.statuses(ids) == {"succeeded": 40}
