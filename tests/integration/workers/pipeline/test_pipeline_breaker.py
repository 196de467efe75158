"""The pipeline while models are down: next model, wait for the breaker, and a budget of retries."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Blocking
from sqlalchemy import update

from headgate.shared.admission import breakers
from headgate.shared.admission.breakers import BreakerRules, report
from headgate.shared.admission.grant import Grant, Held, decode
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.database.tables import jobs
from headgate.shared.job.ids import now_ms
from headgate.workers.errors import (
    AttemptError,
    AttemptTimeout,
    ConnectionLost,
    InvalidOutput,
    Overloaded,
    ProviderFault,
    RateLimited,
    RequestRefused,
    Unauthorized,
)
from headgate.workers.pipeline.outcome import Deferred, Ended, Outcome
from headgate.workers.policy.retry import RetryLimits
from headgate.workers.policy.retry_budget import RetryRules
from headgate.workers.provider import Answer
from tests.support.child import wait_until
from tests.support.pipeline import LIMITS, PlayedPipeline, answer, fault, job_for, played_pipeline
from tests.support.servers import ValkeyServer

RULES = BreakerRules(failures=3, open_s=60)
BRIEF = replace(RULES, open_s=0.5)
PATIENT = RetryLimits(20, 20, backoff_ms=1, backoff_max_ms=5)


@pytest.fixture
async def played(
    request: pytest.FixtureRequest, sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[PlayedPipeline]:
    rules = getattr(request, "param", RULES)
    async with played_pipeline(sqlite_url, valkey.url, tmp_path, rules=rules) as played:
        yield played


open_briefly = pytest.mark.parametrize("played", [BRIEF], indirect=True, ids=["open briefly"])


def breaks(played: PlayedPipeline, *models: str, open_s: float = 60) -> None:
    """Open the breakers of these models."""
    rules = replace(RULES, open_s=open_s)
    with Blocking.from_url(played.redis_url) as client:
        for model in models:
            for _ in range(rules.failures):
                script.run(client, report(Keys(), f"custom/{model}", "key0", rules, failed=1))


def a_probe_may_go(played: PlayedPipeline, model: str) -> None:
    """The time for which the breaker of this model is open has passed."""
    with Blocking.from_url(played.redis_url) as client:
        client.hset(Keys().breaker(f"custom/{model}", "key0"), "retry_at", "1")


def slow() -> AttemptTimeout:
    """No answer came in time; nobody knows whether it is billed."""
    return fault(AttemptTimeout, billed=None)  # type: ignore[return-value]  # it is of that class


def waits_for(outcome: Outcome) -> tuple[Ticket, int]:
    """Return the ticket with which the job waits, and how long it is deferred before."""
    assert isinstance(outcome, Deferred), outcome
    return Ticket.decode(outcome.ticket), outcome.wait_ms


def granted(played: PlayedPipeline, outcome: Outcome, kind: str = "") -> Grant:
    """Return the grant of a job that waits with the ticket of this outcome."""
    ticket, _ = waits_for(outcome)
    if kind:
        flags = outcome.ticket.rpartition("|")[2]  # type: ignore[union-attr]  # it is Deferred
        words = (kind, ticket.pool, ticket.model, "", "o", "0", "0", "0", "default", "", "", flags)
        return decode("|".join(words))
    return Held("held", ticket.model, ticket.pool, "key0", waits=ticket.waits)


async def test_a_model_that_is_down_is_left_out_and_told_once(played: PlayedPipeline) -> None:
    breaks(played, "alpha")
    job = job_for("alpha")
    result = await played.result(job)
    assert (result.status, result.model_used, result.fallback) == ("succeeded", "beta", True)
    assert (result.attempts, [asked.model for asked in played.provider.asked]) == (1, ["beta"])


async def test_who_opens_a_breaker_goes_on_with_the_next_model_at_once(
    played: PlayedPipeline,
) -> None:
    played.provider.play(*[fault(Overloaded)] * 3)
    first, second = job_for("alpha"), job_for("alpha", prompt="other")
    assert (await played.result(first)).model_used == "beta"
    assert played.attempts(first)[:-1] == [("alpha", "failed", "overloaded")] * 3
    assert (await played.result(second)).model_used == "beta"
    assert [model for model, *_ in played.attempts(second)] == ["beta"]


async def test_a_job_without_another_model_waits_in_line_and_is_not_spent(
    played: PlayedPipeline,
) -> None:
    played.provider.play(*[fault(ProviderFault)] * 4)
    job = job_for("lone")
    outcome = await played.run(job)
    ticket, wait_ms = waits_for(outcome)
    assert (ticket.model, ticket.waits, ticket.replaceable, wait_ms) == ("lone", True, False, 0)
    again = await played.run(job, grant=granted(played, outcome))
    assert waits_for(again)[0].waits, "the probe that fails does not end it, though it had 3 tries"
    result = await played.result(job, grant=granted(played, again))
    assert (result.status, result.attempts) == ("succeeded", 5)


async def test_a_probe_that_failed_lets_others_go_before_it(played: PlayedPipeline) -> None:
    breaks(played, "lone")
    job = job_for("lone", submitted_at_ms=now_ms() - 1000)
    waiting, _ = waits_for(await played.run(job))
    assert waiting.arrival_ms == job.submitted_at_ms, "who only waits keeps its place"
    a_probe_may_go(played, "lone")
    played.provider.play(fault(ProviderFault))
    behind, _ = waits_for(await played.run(job))
    assert behind.arrival_ms > waiting.arrival_ms, "a bad request must not be each probe"


async def test_the_timeouts_of_one_job_do_not_condemn_its_model(played: PlayedPipeline) -> None:
    played.provider.play(*[slow()] * 3)
    job = job_for("lone")
    result = await played.result(job)
    assert (result.status, result.error and result.error.code) == ("failed", "timeout")
    assert result.attempts == LIMITS.max_attempts
    with Blocking.from_url(played.redis_url) as client:
        assert breakers.down_models(client, Keys()) == set()
        [model] = breakers.states(client, Keys())
    assert (model.breaker, model.failures) == ("closed", 1)


async def test_the_timeouts_of_several_jobs_open_the_breaker(played: PlayedPipeline) -> None:
    played.provider.play(*[slow()] * 9)
    for n in range(RULES.failures):
        await played.run(job_for("lone", prompt=f"slow {n}"))
    with Blocking.from_url(played.redis_url) as client:
        assert breakers.down_models(client, Keys()) == {"custom/lone"}


@open_briefly
async def test_a_slow_job_probes_no_more_often_than_a_job_may_ask(played: PlayedPipeline) -> None:
    breaks(played, "lone", open_s=0.05)
    played.provider.play(*[slow()] * 30)
    job = job_for("lone")
    outcome = await played.run(job)
    while isinstance(outcome, Deferred):
        await asyncio.sleep(BRIEF.open_s + 0.05)
        outcome = await played.run(job, grant=granted(played, outcome))
    assert isinstance(outcome, Ended)
    result = outcome.result
    assert (result.status, result.error and result.error.code) == ("failed", "timeout")
    assert result.attempts == len(played.provider.asked) == LIMITS.max_attempts_per_job
    assert result.error is not None
    assert result.error.retryable


@open_briefly
async def test_probes_that_cost_nothing_are_not_counted(played: PlayedPipeline) -> None:
    breaks(played, "lone", open_s=0.05)
    await asyncio.sleep(0.06)
    job = job_for("lone")
    tries = LIMITS.max_attempts_per_job + 2
    played.provider.play(*[fault(ConnectionLost)] * tries)
    outcome = await played.run(job)
    for _ in range(tries - 1):
        await asyncio.sleep(BRIEF.open_s + 0.05)
        outcome = await played.run(job, grant=granted(played, outcome))
    result = await played.result(job, grant=granted(played, outcome))
    assert (result.status, result.attempts) == ("succeeded", tries + 1)


async def test_while_all_models_are_down_the_job_looks_now_and_then_for_one_that_is_up(
    played: PlayedPipeline,
) -> None:
    breaks(played, "alpha", "beta")
    job = job_for("alpha")
    outcome = await played.run(job)
    ticket, wait_ms = waits_for(outcome)
    assert (ticket.waits, ticket.replaceable) == (True, True)
    assert 20_000 < wait_ms < 40_000
    up = "alpha" if ticket.model == "beta" else "beta"
    with Blocking.from_url(played.redis_url) as client:
        client.delete(Keys().breaker(f"custom/{up}", "key0"))
    with played.engine.begin() as connection:
        connection.execute(update(jobs).values(retry_at_ms=0))  # that time has passed
    result = await played.result(job, grant=granted(played, outcome, "broken"))
    assert (result.model_used, result.attempts) == (up, 1)


async def test_a_fixed_answer_ends_a_chain_that_is_down(played: PlayedPipeline) -> None:
    breaks(played, "polite", "beta")
    result = await played.result(job_for("polite"))
    assert (result.content, result.model_used, result.attempts) == (
        "Please ask again later.", "static", 0,
    )  # fmt: skip


async def test_the_errors_of_a_chain_name_the_model_that_was_down(played: PlayedPipeline) -> None:
    breaks(played, "alpha")
    played.provider.play(fault(RequestRefused, "not so"))
    result = await played.result(job_for("alpha"))
    assert result.error is not None
    told = [(attempt.model, attempt.code) for attempt in result.error.attempts]
    assert told == [("alpha", "breaker_open"), ("beta", "invalid_request")]
    assert result.attempts == 1


async def test_errors_of_requests_and_short_deadlines_open_nothing(played: PlayedPipeline) -> None:
    for n in range(4):
        played.provider.play(fault(RequestRefused))
        await played.result(job_for("lone", prompt=f"{n}"))
        played.provider.play(fault(AttemptTimeout))
        await played.run(job_for("lone", prompt=f"short {n}", deadline_s=5))
    with Blocking.from_url(played.redis_url) as client:
        assert breakers.down_models(client, Keys()) == set()


async def test_a_dead_key_opens_its_breaker_and_who_asked_with_it_is_told(
    played: PlayedPipeline,
) -> None:
    played.provider.play(*[fault(Unauthorized)] * 3)
    for n in range(3):
        result = await played.result(job_for("lone", prompt=f"{n}"))
        assert result.error is not None
        assert result.error.code == "authentication"
    assert waits_for(await played.run(job_for("lone", prompt="4")))[0].model == "lone"


async def test_an_answer_of_the_probe_lets_all_go_on(played: PlayedPipeline) -> None:
    breaks(played, "lone")
    a_probe_may_go(played, "lone")
    assert (await played.result(job_for("lone"))).status == "succeeded"

    def is_closed() -> bool:
        with Blocking.from_url(played.redis_url) as client:
            [one] = breakers.states(client, Keys())
        return (one.breaker, one.state) == ("closed", "degraded")

    await asyncio.to_thread(wait_until, is_closed, 5, "the breaker to close")


async def test_a_deadline_ends_the_waiting(played: PlayedPipeline) -> None:
    breaks(played, "lone")
    job = job_for("lone", deadline_s=60)
    outcome = await played.run(job)
    late = job.model_copy(update={"submitted_at_ms": job.submitted_at_ms - 61_000})
    result = await played.result(late, grant=granted(played, outcome, "late"))
    assert (result.status, result.error and result.error.code) == ("expired", "deadline")


async def test_retries_beyond_the_budget_are_put_off_or_left_to_the_next_model(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    rules = RetryRules(share=0.2, per_s=0.02)
    async with played_pipeline(
        sqlite_url, valkey.url, tmp_path, retries=rules, limits=PATIENT
    ) as played:
        played.provider.play(*[fault(ProviderFault)] * 30)
        job = job_for("lone")
        ticket, wait_ms = waits_for(await played.run(job))
        assert (ticket.model, ticket.waits) == ("lone", False)
        assert 25_000 < wait_ms <= 50_000, "until the budget has the one that it has booked"
        assert len(played.attempts(job)) == 2, "the first call, and one retry by time"
        ticket, next_ms = waits_for(await played.run(job_for("lone", prompt="another")))
        assert next_ms > wait_ms + 25_000, "behind the one that is booked"
        late = await played.result(job_for("lone", prompt="short", deadline_s=50))
        assert late.error is not None
        assert (late.status, late.error.code, late.error.retryable) == (
            "failed", "provider_error", True,
        )  # fmt: skip
        played.provider.script.clear()
        played.provider.play(fault(ProviderFault))
        other = job_for("alpha")
        assert (await played.result(other)).model_used == "beta"


async def test_a_retry_of_a_refused_connection_or_limit_takes_nothing_from_the_budget(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    rules = RetryRules(share=0, per_s=0)
    async with played_pipeline(
        sqlite_url, valkey.url, tmp_path, retries=rules, limits=PATIENT
    ) as played:
        refused = fault(ConnectionLost, "Connection refused", billed=False)
        played.provider.play(refused, fault(RateLimited, retry_after_ms=1), refused)
        result = await played.result(job_for("lone"))
        assert (result.status, result.attempts) == ("succeeded", 4)
        played.provider.play(fault(ConnectionLost, "it broke", billed=None))
        broken = await played.result(job_for("lone", prompt="cut"))
        assert (broken.status, broken.attempts) == ("failed", 1)


@pytest.mark.parametrize(("share", "calls"), [(0.0, 2), (1.5, 3)])
async def test_each_provider_earns_retries_by_the_first_calls_of_jobs(
    share: float, calls: int, sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """A job that a breaker has kept from its model makes its first call all the same."""
    rules = RetryRules(share=share, per_s=0)
    async with played_pipeline(
        sqlite_url, valkey.url, tmp_path, retries=rules, limits=PATIENT
    ) as played:
        breaks(played, "alpha")
        played.provider.play(*[fault(ProviderFault)] * 5)
        result = await played.result(job_for("alpha"))
        assert (result.status, result.attempts) == ("failed", calls)


FIVE_KINDS: tuple[tuple[float, type[AttemptError], dict[str, Any]], ...] = (
    (0.03, RateLimited, {"retry_after_ms": 5}),
    (0.05, ProviderFault, {"billed": None}),
    (0.04, Overloaded, {}),
    (0.02, ConnectionLost, {"billed": None}),
    (0.03, InvalidOutput, {"billed": None}),
)


async def test_a_storm_of_faults_costs_a_third_of_a_call_a_job_and_no_job_waits_for_retries(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """Of 400 jobs at once 17 % of the calls fail; `python -m tests.bench storm` takes its time.

    Which job meets which faults is left to chance: a job has so many tries that none spends them.
    """
    limits = RetryLimits(12, 12, backoff_ms=5, backoff_max_ms=20)
    async with played_pipeline(
        sqlite_url, valkey.url, tmp_path, retries=RetryRules(), rules=BreakerRules(5), limits=limits
    ) as played:
        played.provider.play(*_storm(2000))
        jobs = [job_for("lone", prompt=f"{n}") for n in range(400)]
        outcomes = await asyncio.gather(*(played.run(job) for job in jobs))
        ends = Counter(one.result.status if isinstance(one, Ended) else "waits" for one in outcomes)
        with Blocking.from_url(played.redis_url) as client:
            assert breakers.down_models(client, Keys()) == set()
        assert ends == {"succeeded": 400}
        assert 400 * 1.1 < len(played.provider.asked) <= 400 * 1.35


def _storm(calls: int) -> list[Answer | Exception]:
    chance, steps = random.Random(17), list[Answer | Exception]()  # noqa: S311 (no secret)
    for _ in range(calls):
        at = chance.random()
        for share, kind, facts in FIVE_KINDS:
            if at < share:
                steps.append(fault(kind, **facts))
                break
            at -= share
        else:
            steps.append(answer())
    return steps


async def test_an_outage_costs_less_than_a_fifth_of_a_call_a_job(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """All calls to a model fail for 300 jobs; `python -m tests.bench outage` takes a minute."""
    async with played_pipeline(
        sqlite_url, valkey.url, tmp_path, retries=RetryRules(), rules=BreakerRules(5)
    ) as played:
        played.provider.down.add("alpha")
        results = [await played.result(job_for("alpha", prompt=f"{n}")) for n in range(300)]
        assert {(one.status, one.model_used) for one in results} == {("succeeded", "beta")}
        assert len(played.provider.asked) <= 300 * 1.2
