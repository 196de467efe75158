"""A job that waits costs nothing, is told as what it is, and ends as it was asked to."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import pytest

from headgate import RequestFields, TierLimit
from headgate.producer.client.client import Client
from tests.support import installation
from tests.support.governor import MODEL, OTHER, POOL, THIRD, Open, World, limits, world
from tests.support.servers import ValkeyServer

__all__ = ["world"]

LATENCY = "--latency-ms=50"


def in_s(moment: str | None) -> float:
    """How many seconds that moment is away."""
    assert moment is not None
    return datetime.fromisoformat(moment).timestamp() - time.time()


@pytest.mark.slow
def test_a_job_that_waits_holds_nothing_in_a_worker_and_survives_every_restart(
    world: Open, valkey_factory: Callable[..., ValkeyServer]
) -> None:
    server = valkey_factory(appendonly=True, extra=("--appendfsync", "always"))
    here = world(
        LATENCY, catalog=limits(rpm=1), server=server
    )  # so that the next job starts a minute later
    ids = here.submit(20)
    here.until_in_line(19)
    here.wait(lambda: here.ended(ids) == 1, "the first to end")
    here.wait(lambda: here.held() == 0, "its acknowledgement, without which it would come again")
    waiting = [one for one in ids if here.ended([one]) == 0]
    here.workers[0].kill()
    server.kill()
    server.start()
    here.worker()

    def all_there() -> bool:
        return here.in_line() + here.ended(ids) == 20  # a minute may be over, and the next ended

    here.wait(all_there, "all that have not ended to be in line")
    for one in (waiting[9], waiting[-1]):
        here.until_deferred(one)  # once a worker lives again
        result = here.client.result(one)
        assert result.attempts == 0
        assert 0 < in_s(result.retry_at) < 1500
    here.workers[1].stop(20)
    assert all_there(), "a worker that is told to stop has nothing of it to give back"
    here.worker()
    here.command("limits", "set", f"pool/{POOL}", "rpm=6000")
    here.until_ended(ids)
    stats = here.simulator.stats()
    assert stats["prompts"]["distinct"] == stats["requests"] == 20
    assert {here.client.result(one).attempts for one in waiting} == {1}
    installation.the_books_agree(installation.database_url(here.env), here.simulator, 20, unknown=0)


def test_waiting_is_no_attempt_and_no_fallback_unless_the_deadline_would_be_missed(
    world: Open,
) -> None:
    here = world(LATENCY, catalog=limits(rpm=60))
    chain = {"fallback": [THIRD]}
    patient = here.submit(5, **chain)
    here.until_ended(patient)
    for one in patient:
        result = here.client.result(one)
        assert (result.model_used, result.fallback, result.attempts) == (MODEL, False, 1)
    here.command("limits", "set", f"pool/{POOL}", "rpm=1")
    behind = here.submit(3, **chain)
    [hurried] = here.submit(1, deadline_s=20, **chain)
    result = here.client.result(hurried, wait=True, timeout_s=20)
    assert (result.model_used, result.fallback, result.attempts) == (THIRD, True, 1)
    assert result.error is None
    assert here.ended(behind) == 0


def test_a_job_whose_deadline_passes_in_line_ends_expired_and_spends_nothing(world: Open) -> None:
    here = world(LATENCY, catalog=limits(rpm=1))
    [first] = here.submit(1)
    here.until_ended([first])
    late = here.submit(3, deadline_s=1)
    [patient] = here.submit(1)
    here.until_ended(late)
    for one in late:
        result = here.client.result(one)
        assert result.status == "expired"
        assert result.error is not None
        assert (result.error.code, result.attempts) == ("deadline", 0)
        assert result.cost_usd in ("0", None)
    assert [one.job_id for one in here.starts()] == [first]
    assert here.accepted() == 1
    here.until_deferred(patient)


def test_a_request_larger_than_its_limit_is_told_at_once(world: Open) -> None:
    here = world(LATENCY, catalog=limits(tpm=2000))
    large = {"params": {"max_tokens": 4000}}
    [alone] = here.submit(1, **large)
    [helped] = here.submit(1, fallback=[OTHER], **large)
    here.until_ended([alone, helped])
    result = here.client.result(alone)
    assert result.error is not None
    assert (result.status, result.error.code, result.attempts) == ("failed", "rate_limited", 0)
    assert not result.error.retryable
    assert "lower max_tokens, or raise the limit" in result.error.message
    result = here.client.result(helped)
    assert (result.status, result.model_used, result.attempts) == ("succeeded", OTHER, 1)


def test_an_answer_that_is_kept_leaves_before_the_line(world: Open) -> None:
    here = world(LATENCY)
    question: RequestFields = {"prompt": "Asked before", "model": MODEL}
    here.until_ended([here.client.submit(**question).id])
    here.command("pause", "pool", POOL)
    waiting = here.submit(5)
    here.until_in_line(5)
    result = here.client.submit(**question).result(timeout_s=20)
    assert result.cached == "exact"
    assert here.ended(waiting) == 0


TIERS = '[tiers.small]\nrpm = 3\nlockout_s = 60\n[tenants.acme]\ntier = "small"\n'


def refused(client: Client, user: str) -> TierLimit:
    with pytest.raises(TierLimit) as caught:
        client.submit("Hello", model=MODEL, tenant="acme", user=user, on_limit="refuse")
    return caught.value


def test_a_caller_over_its_tier_waits_in_line_or_is_refused_as_it_asked(world: Open) -> None:
    here = world(LATENCY, catalog=TIERS)
    ids = here.submit(5, tenant="acme", user="u1")
    others = here.submit(3, tenant="acme", user="u2")
    here.until_ended(others)
    here.wait(lambda: here.ended(ids) == 3, "the first three to end")
    here.until_in_line(2)
    waiting = next(one for one in ids if here.ended([one]) == 0)
    here.until_deferred(waiting)
    shown = here.client.result(waiting)
    assert 0 < in_s(shown.retry_at) < 60
    error = refused(here.client, "u1")
    assert (error.code, error.limit) == ("tier_limit", "over 3 calls a minute (tier small)")
    assert error.retry_after_s > 0
    assert len(here.ids()) == 8, "nothing of a refusal is on record"
    free = here.submit(1, tenant="other", user="u1")
    here.until_ended(free)

    here.command("limits", "set", "tier/small", "rpm=6000")
    here.until_ended(ids)
    assert here.statuses() == {"succeeded": 9}


def test_who_is_refused_again_and_again_is_locked_out_and_shown(world: Open) -> None:
    here = world(LATENCY, catalog=TIERS)
    for _ in range(3):
        here.client.submit("Hello", model=MODEL, tenant="acme", user="u1", on_limit="refuse")
    waits_s = [refused(here.client, "u1").retry_after_s for _ in range(4)]
    assert waits_s[0] <= 20 < waits_s[-1] <= 60, waits_s
    [row] = here.command("limits", "--json").document["lockouts"]
    assert (row["tenant"], row["user"]) == ("acme", "u1")
    here.client.submit("Hello", model=MODEL, tenant="acme", user="u2", on_limit="refuse")


def test_calls_at_once_of_a_tenant_and_of_a_pool_are_never_over_their_number(world: Open) -> None:
    overlay = "[tenants.acme]\nconcurrent = 3\n" + limits(concurrent=5)
    here = world("--latency-ms=600", catalog=overlay, workers=2)
    ids = here.submit(15, tenant="acme")
    others = here.submit(15, tenant="other")
    here.until_ended([*ids, *others])
    assert here.simulator.stats()["open_most"] == 5
    assert most_at_once(here, ids) == 3


def most_at_once(here: World, ids: list[str]) -> int:
    """The most of these jobs that ran at any moment, by the ledger."""
    marks = sorted(mark for span in here.spans(ids) for mark in ((span[0], 1), (span[1], -1)))
    running = most = 0
    for _, by in marks:
        running += by
        most = max(most, running)
    return most
