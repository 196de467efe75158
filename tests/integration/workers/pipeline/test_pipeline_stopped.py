"""Jobs that are stopped on the way, and jobs over which workers have died."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from sqlalchemy import update

from headgate.shared.broker.keys import Keys
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.clients.memory_bounds import MemoryBounds
from headgate.workers.errors import ProviderFault
from headgate.workers.pipeline.outcome import AlreadyTaken, Ended, Restored
from headgate.workers.stages.ledger import Attempt, Ledger
from headgate.workers.stages.publish import Publish
from tests.support.child import BUSY, wait_until
from tests.support.pipeline import (
    COST_PICO_USD,
    PlayedPipeline,
    answer,
    fault,
    job_for,
    played_pipeline,
)
from tests.support.servers import ValkeyServer
from tests.support.stages import with_stages


@pytest.fixture
async def played(
    database_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[PlayedPipeline]:
    async with played_pipeline(database_url, valkey.url, tmp_path) as played:
        yield played


async def test_cancelling_closes_the_call_and_the_attempt_is_unknown(
    played: PlayedPipeline,
) -> None:
    played.provider.play(asyncio.Event())
    job = job_for()
    outcome = await played.stop(await played.start(job), "cancelled")
    assert isinstance(outcome, Ended)
    assert (outcome.result.status, played.provider.cut) == ("cancelled", 1)
    assert played.attempts(job) == [("alpha", "unknown", "cancelled")]
    audited = played.audited(job)
    assert (audited.status, audited.unknown_attempts) == ("cancelled", 1)
    assert str(played.celery(job).state) == "REVOKED"


async def test_the_workers_time_limit_ends_the_job_as_timed_out(played: PlayedPipeline) -> None:
    played.provider.play(asyncio.Event())
    job = job_for()
    outcome = await played.stop(await played.start(job), "timeout")
    assert isinstance(outcome, Ended)
    assert outcome.result.status == "failed"
    assert outcome.result.error is not None
    assert outcome.result.error.code == "timeout"
    assert played.provider.cut == 1


async def test_a_shutdown_gives_the_job_back_with_its_attempt_unknown(
    played: PlayedPipeline,
) -> None:
    played.provider.play(asyncio.Event())
    job = job_for()
    assert isinstance(await played.stop(await played.start(job), "shutdown"), Restored)
    assert played.row(job).status == "queued"
    assert played.attempts(job) == [("alpha", "unknown", "cancelled")]
    assert played.rows(audit, job) == []

    played.stopped = None
    result = await played.result(job)
    assert (result.status, result.attempts) == ("succeeded", 2)
    assert played.row(job).fence == 2


async def test_a_job_with_a_lost_lease_is_left_to_the_other_worker(played: PlayedPipeline) -> None:
    played.provider.play(asyncio.Event())
    job = job_for()
    outcome = await played.stop(await played.start(job), "lost")
    assert isinstance(outcome, AlreadyTaken)
    assert (played.provider.cut, played.row(job).status) == (1, "running")


async def test_a_cancellation_noted_before_the_claim_asks_nobody(played: PlayedPipeline) -> None:
    job = job_for()
    await played.crash(job, "alpha")
    with played.engine.begin() as connection:
        connection.execute(update(jobs).values(cancel_wanted=True))
    result = await played.result(job)
    assert (result.status, played.provider.asked) == ("cancelled", [])
    assert played.audited(job).unknown_attempts == 1


async def test_a_late_worker_publishes_nothing(played: PlayedPipeline) -> None:
    silence = asyncio.Event()
    played.provider.play(silence)
    job = job_for()
    late = await played.start(job)
    result = await played.result(job)  # another worker took over and was answered
    silence.set()
    assert isinstance(await asyncio.wait_for(late, 10 * BUSY), Restored)  # its lease is another's
    assert played.celery(job).get(timeout=5) == result.as_json()
    assert len(played.rows(audit, job)) == 1
    assert played.row(job).fence == 2


@pytest.mark.parametrize("reason", ["cancelled", "timeout", "shutdown"])
async def test_stopped_while_an_answer_is_settled_leaves_no_attempt_open(
    valkey_factory: Callable[..., ValkeyServer],
    sqlite_url: str,
    tmp_path: Path,
    reason: str,
) -> None:
    """Anthropic's tokens are settled on Redis between the answer and its record."""
    server = valkey_factory()
    async with played_pipeline(sqlite_url, server.url, tmp_path) as played:
        silence = asyncio.Event()
        played.provider.play(silence)
        job = job_for("claude")
        run = await played.start(job)
        server.freeze()
        silence.set()
        await asyncio.sleep(0.1)  # the answer is there, and its settlement waits for Redis
        played.stopped = reason
        run.cancel()
        server.thaw()
        await asyncio.wait_for(run, 20 * BUSY)
        assert [state for _, state, _ in played.attempts(job)] != ["open"]


class SlowLedger(Ledger):
    """Tells when an attempt is about to be on record."""

    def __init__(self, record: GroupCommit) -> None:
        super().__init__(record)
        self.opening = asyncio.Event()

    def open(self, attempt: Attempt) -> Awaitable[bool]:
        self.opening.set()
        return super().open(attempt)


@pytest.mark.parametrize("reason", ["cancelled", "shutdown"])
async def test_what_is_stopped_before_it_is_sent_is_neither_open_nor_unknown(
    played: PlayedPipeline, reason: str
) -> None:
    ledger = SlowLedger(played.record)
    played.pipeline = with_stages(played.pipeline, ledger=ledger)
    job = job_for(on_unknown="fail")
    run = asyncio.ensure_future(played.run(job))
    await ledger.opening.wait()
    outcome = await played.stop(run, reason)
    assert played.attempts(job) == [("alpha", "failed", "cancelled")]
    assert played.provider.asked == []
    if reason == "cancelled":
        assert played.audited(job).unknown_attempts == 0
        return
    assert isinstance(outcome, Restored)
    played.stopped = None
    assert (await played.result(job)).status == "succeeded"


async def test_a_result_that_redis_refuses_stays_what_it_is_on_record(
    played: PlayedPipeline,
) -> None:
    """Its message is not acknowledged, so the next worker publishes it."""

    class Refused(Publish):
        async def publish(self, *_: Any, **__: Any) -> None:
            raise ResponseError("NOPERM")

    whole = played.pipeline
    played.pipeline = replace(
        whole, publish=Refused(played.batcher, Keys(), ttl_s=60, bounds=MemoryBounds())
    )
    job = job_for()
    with pytest.raises(ResponseError):
        await played.run(job)
    assert played.row(job).status == played.audited(job).status == "succeeded"
    played.pipeline = whole
    assert isinstance(await played.run(job, crashes=1), AlreadyTaken)
    assert played.celery(job).state == "SUCCESS"


# Workers that died.


async def test_after_a_crash_the_job_is_asked_again_and_the_lost_attempt_is_told(
    played: PlayedPipeline,
) -> None:
    job = job_for()
    await played.crash(job, "alpha")
    result = await played.result(job, crashes=1)
    assert (result.status, result.attempts, result.cost_usd) == ("succeeded", 2, "0.00005")
    assert played.attempts(job) == [("alpha", "unknown", None), ("alpha", "answered", None)]
    audited = played.audited(job)
    assert (audited.attempts, audited.unknown_attempts) == (2, 1)
    assert audited.cost_pico_usd == COST_PICO_USD


async def test_a_job_that_must_not_be_billed_twice_fails_after_a_crash(
    played: PlayedPipeline,
) -> None:
    job = job_for(on_unknown="fail")
    await played.crash(job, "alpha")
    result = await played.result(job, crashes=1)
    assert (result.status, played.provider.asked) == ("failed", [])
    assert result.error is not None
    assert result.error.code == "internal"
    assert "on_unknown" in result.error.message
    assert [a.model for a in result.error.attempts] == ["alpha"]


async def test_a_crash_before_any_request_leaves_nothing_unknown(played: PlayedPipeline) -> None:
    job = job_for(on_unknown="fail")
    await played.crash(job)
    await played.pipeline.claims.take(job)
    assert (await played.result(job, crashes=1)).status == "succeeded"


async def test_a_shutdown_in_the_middle_of_a_request_is_a_crash_to_who_must_not_pay_twice(
    played: PlayedPipeline,
) -> None:
    played.provider.play(asyncio.Event())
    job = job_for(on_unknown="fail")
    await played.stop(await played.start(job), "shutdown")
    played.stopped = None
    result = await played.result(job)
    assert (result.status, len(played.provider.asked)) == ("failed", 1)


async def test_tries_before_a_crash_count(played: PlayedPipeline) -> None:
    job = job_for(fallback=False)
    await played.crash(job, "alpha", "alpha")
    played.provider.play(*(fault(ProviderFault) for _ in range(5)))
    result = await played.result(job, crashes=2)
    assert (result.status, len(played.provider.asked), result.attempts) == ("failed", 1, 3)


async def test_a_model_spent_before_a_crash_is_not_asked_again(played: PlayedPipeline) -> None:
    job = job_for()
    await played.crash(job, "alpha", "alpha", "alpha")
    result = await played.result(job, crashes=2)
    assert (result.status, result.model_used) == ("succeeded", "beta")


async def test_a_job_with_all_its_tries_spent_before_a_crash_asks_no_more(
    played: PlayedPipeline,
) -> None:
    job = job_for()
    await played.crash(job, "alpha", "alpha", "alpha", "beta")
    result = await played.result(job, crashes=2)
    assert (result.status, played.provider.asked) == ("failed", [])


async def test_a_job_that_workers_cut_off_too_often_has_failed_and_is_not_cancelled(
    played: PlayedPipeline,
) -> None:
    job = job_for(fallback=False)
    for _ in range(3):
        played.provider.play(asyncio.Event())
        assert isinstance(await played.stop(await played.start(job), "shutdown"), Restored)
        played.stopped = None
    result = await played.result(job)
    assert (result.status, result.attempts) == ("failed", 3)
    assert result.error is not None
    assert [attempt.code for attempt in result.error.attempts] == ["cancelled"] * 3


async def test_a_job_that_kills_workers_is_given_up(played: PlayedPipeline) -> None:
    job = job_for()
    await played.crash(job, "alpha", "alpha")
    result = await played.result(job, crashes=3)
    assert (result.status, played.provider.asked) == ("failed", [])
    assert result.error is not None
    assert result.error.code == "internal"
    assert "3 workers died" in result.error.message
    assert played.audited(job).unknown_attempts == 2


async def test_the_audit_adds_up_over_many_jobs(played: PlayedPipeline) -> None:
    played.provider.play(
        *(fault(ProviderFault) for _ in range(3)), answer(), fault(ProviderFault), answer()
    )
    asked = [job_for(prompt=f"question {n}") for n in range(40)]
    again = [job_for(prompt=f"question {n}") for n in range(40)]
    await asyncio.gather(*(played.result(job) for job in asked))
    await asyncio.gather(*(played.result(job) for job in again))
    with played.engine.connect() as connection:
        bought = connection.execute(attempts.select()).all()
        lines = connection.execute(audit.select()).all()
    assert sum(row.cost_pico_usd for row in bought) == sum(row.cost_pico_usd for row in lines)
    assert sum(row.cost_pico_usd for row in lines) == 40 * COST_PICO_USD
    assert sum(row.saved_pico_usd or 0 for row in lines) == 40 * COST_PICO_USD
    assert sum(row.attempts for row in lines) == len(bought) == 44


# What cannot be written down.


@pytest.mark.parametrize(
    "content", ["nul \x00", "half a \ud800 pair", "\U0001f600" * 10], ids=["nul", "half", "wide"]
)
async def test_any_answer_ends_its_job(played: PlayedPipeline, content: str) -> None:
    played.provider.play(answer(content))
    job = job_for()
    result = await played.result(job)
    assert result.status == ("failed" if "half" in content else "succeeded")
    assert played.row(job).status == result.status
    assert played.attempts(job) == [("alpha", "answered", None)]
    assert played.audited(job).cost_pico_usd == COST_PICO_USD
    assert played.celery(job).ready()


async def test_any_message_of_a_fault_ends_its_job(played: PlayedPipeline) -> None:
    played.provider.play(fault(ProviderFault, "half a \ud800 pair\x00", request_id="\ud800"))
    job = job_for("lone")
    await played.result(job)
    assert [state for _, state, _ in played.attempts(job)] == ["failed", "answered"]


async def test_results_wait_for_a_redis_that_is_down(
    valkey_factory: Callable[..., ValkeyServer], sqlite_url: str, tmp_path: Path
) -> None:
    server = valkey_factory(appendonly=True)
    async with played_pipeline(sqlite_url, server.url, tmp_path) as played:
        silence = asyncio.Event()
        played.provider.play(silence)
        job = job_for()
        run: asyncio.Task[Any] = await played.start(job)
        await asyncio.to_thread(server.kill)
        silence.set()
        await asyncio.to_thread(
            wait_until, lambda: played.row(job).status == "succeeded", 10, "the record"
        )
        assert not run.done()
        await asyncio.to_thread(server.start)
        assert isinstance(await asyncio.wait_for(run, 20 * BUSY), Ended)
        assert played.celery(job).state == "SUCCESS"
