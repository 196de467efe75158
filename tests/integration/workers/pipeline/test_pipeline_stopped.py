"""Jobs that are stopped on the way, and jobs over which workers have died."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError
from sqlalchemy import update

from headgate.shared.broker.jobs import CacheWrite
from headgate.shared.broker.keys import Keys
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.result import Result
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.errors import ProviderFault
from headgate.workers.pipeline.outcome import AlreadyTaken, Ended, Restored
from headgate.workers.stages.ledger import Attempt, Ledger
from headgate.workers.stages.publish import Publish
from tests.support.child import wait_until
from tests.support.pipeline import COST_PICO_USD, PlayedLine, answer, fault, job_for, played_line
from tests.support.servers import ValkeyServer
from tests.support.stages import with_stages


@pytest.fixture
async def line(
    database_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[PlayedLine]:
    async with played_line(database_url, valkey.url, tmp_path) as line:
        yield line


async def test_cancelling_closes_the_call_and_the_attempt_is_unknown(line: PlayedLine) -> None:
    line.provider.play(asyncio.Event())
    job = job_for()
    outcome = await line.stop(await line.start(job), "cancelled")
    assert isinstance(outcome, Ended)
    assert (outcome.result.status, line.provider.cut) == ("cancelled", 1)
    assert line.attempts(job) == [("alpha", "unknown", "cancelled")]
    audited = line.audited(job)
    assert (audited.status, audited.unknown_attempts) == ("cancelled", 1)
    assert str(line.celery(job).state) == "REVOKED"


async def test_the_workers_time_limit_ends_the_job_as_timed_out(line: PlayedLine) -> None:
    line.provider.play(asyncio.Event())
    job = job_for()
    outcome = await line.stop(await line.start(job), "timeout")
    assert isinstance(outcome, Ended)
    assert outcome.result.status == "failed"
    assert outcome.result.error is not None
    assert outcome.result.error.code == "timeout"
    assert line.provider.cut == 1


async def test_a_shutdown_gives_the_job_back_with_its_attempt_unknown(line: PlayedLine) -> None:
    line.provider.play(asyncio.Event())
    job = job_for()
    assert isinstance(await line.stop(await line.start(job), "shutdown"), Restored)
    assert line.row(job).status == "queued"
    assert line.attempts(job) == [("alpha", "unknown", "cancelled")]
    assert line.rows(audit, job) == []

    line.stopped = None
    result = await line.result(job)
    assert (result.status, result.attempts) == ("succeeded", 2)
    assert line.row(job).fence == 2


async def test_a_job_with_a_lost_lease_is_left_to_the_other_worker(line: PlayedLine) -> None:
    line.provider.play(asyncio.Event())
    job = job_for()
    outcome = await line.stop(await line.start(job), "lost")
    assert isinstance(outcome, AlreadyTaken)
    assert (line.provider.cut, line.row(job).status) == (1, "running")


async def test_a_cancellation_noted_before_the_claim_asks_nobody(line: PlayedLine) -> None:
    job = job_for()
    await line.crash(job, "alpha")
    with line.engine.begin() as connection:
        connection.execute(update(jobs).values(cancel_wanted=True))
    result = await line.result(job)
    assert (result.status, line.provider.asked) == ("cancelled", [])
    assert line.audited(job).unknown_attempts == 1


async def test_a_late_worker_publishes_nothing(line: PlayedLine) -> None:
    silence = asyncio.Event()
    line.provider.play(silence)
    job = job_for()
    late = await line.start(job)
    result = await line.result(job)  # another worker took over and was answered
    silence.set()
    assert isinstance(await asyncio.wait_for(late, 10), Restored)  # its lease is another's
    assert line.celery(job).get(timeout=5) == result.as_json()
    assert len(line.rows(audit, job)) == 1
    assert line.row(job).fence == 2


@pytest.mark.parametrize("reason", ["cancelled", "timeout", "shutdown"])
async def test_stopped_while_an_answer_is_settled_leaves_no_attempt_open(
    valkey_factory: Callable[..., ValkeyServer],
    sqlite_url: str,
    tmp_path: Path,
    reason: str,
) -> None:
    """Anthropic's tokens are settled on Redis between the answer and its record."""
    server = valkey_factory()
    async with played_line(sqlite_url, server.url, tmp_path) as line:
        silence = asyncio.Event()
        line.provider.play(silence)
        job = job_for("claude")
        run = await line.start(job)
        server.freeze()
        silence.set()
        await asyncio.sleep(0.1)  # the answer is there, and its settlement waits for Redis
        line.stopped = reason
        run.cancel()
        server.thaw()
        await asyncio.wait_for(run, 20)
        assert [state for _, state, _ in line.attempts(job)] != ["open"]


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
    line: PlayedLine, reason: str
) -> None:
    ledger = SlowLedger(line.record)
    line.pipeline = with_stages(line.pipeline, ledger=ledger)
    job = job_for(on_unknown="fail")
    run = asyncio.ensure_future(line.run(job))
    await ledger.opening.wait()
    outcome = await line.stop(run, reason)
    assert line.attempts(job) == [("alpha", "failed", "cancelled")]
    assert line.provider.asked == []
    if reason == "cancelled":
        assert line.audited(job).unknown_attempts == 0
        return
    assert isinstance(outcome, Restored)
    line.stopped = None
    assert (await line.result(job)).status == "succeeded"


async def test_a_result_that_redis_refuses_stays_what_it_is_on_record(line: PlayedLine) -> None:
    """Its message is not acknowledged, so the next worker publishes it."""

    class Refused(Publish):
        async def publish(self, result: Result, answers: Sequence[CacheWrite] = ()) -> None:
            raise ResponseError("NOPERM")

    whole = line.pipeline
    line.pipeline = replace(whole, publish=Refused(line.lane, Keys(), ttl_s=60))
    job = job_for()
    with pytest.raises(ResponseError):
        await line.run(job)
    assert line.row(job).status == line.audited(job).status == "succeeded"
    line.pipeline = whole
    assert isinstance(await line.run(job, crashes=1), AlreadyTaken)
    assert line.celery(job).state == "SUCCESS"


# Workers that died.


async def test_after_a_crash_the_job_is_asked_again_and_the_lost_attempt_is_told(
    line: PlayedLine,
) -> None:
    job = job_for()
    await line.crash(job, "alpha")
    result = await line.result(job, crashes=1)
    assert (result.status, result.attempts, result.cost_usd) == ("succeeded", 2, "0.00005")
    assert line.attempts(job) == [("alpha", "unknown", None), ("alpha", "answered", None)]
    audited = line.audited(job)
    assert (audited.attempts, audited.unknown_attempts) == (2, 1)
    assert audited.cost_pico_usd == COST_PICO_USD


async def test_a_job_that_must_not_be_billed_twice_fails_after_a_crash(line: PlayedLine) -> None:
    job = job_for(on_unknown="fail")
    await line.crash(job, "alpha")
    result = await line.result(job, crashes=1)
    assert (result.status, line.provider.asked) == ("failed", [])
    assert result.error is not None
    assert result.error.code == "internal"
    assert "on_unknown" in result.error.message
    assert [a.model for a in result.error.attempts] == ["alpha"]


async def test_a_crash_before_any_request_leaves_nothing_unknown(line: PlayedLine) -> None:
    job = job_for(on_unknown="fail")
    await line.crash(job)
    await line.pipeline.claims.take(job)
    assert (await line.result(job, crashes=1)).status == "succeeded"


async def test_a_shutdown_in_the_middle_of_a_request_is_a_crash_to_who_must_not_pay_twice(
    line: PlayedLine,
) -> None:
    line.provider.play(asyncio.Event())
    job = job_for(on_unknown="fail")
    await line.stop(await line.start(job), "shutdown")
    line.stopped = None
    result = await line.result(job)
    assert (result.status, len(line.provider.asked)) == ("failed", 1)


async def test_tries_before_a_crash_count(line: PlayedLine) -> None:
    job = job_for(fallback=False)
    await line.crash(job, "alpha", "alpha")
    line.provider.play(*(fault(ProviderFault) for _ in range(5)))
    result = await line.result(job, crashes=2)
    assert (result.status, len(line.provider.asked), result.attempts) == ("failed", 1, 3)


async def test_a_model_spent_before_a_crash_is_not_asked_again(line: PlayedLine) -> None:
    job = job_for()
    await line.crash(job, "alpha", "alpha", "alpha")
    result = await line.result(job, crashes=2)
    assert (result.status, result.model_used) == ("succeeded", "beta")


async def test_a_job_with_all_its_tries_spent_before_a_crash_asks_no_more(
    line: PlayedLine,
) -> None:
    job = job_for()
    await line.crash(job, "alpha", "alpha", "alpha", "beta")
    result = await line.result(job, crashes=2)
    assert (result.status, line.provider.asked) == ("failed", [])


async def test_a_job_that_workers_cut_off_too_often_has_failed_and_is_not_cancelled(
    line: PlayedLine,
) -> None:
    job = job_for(fallback=False)
    for _ in range(3):
        line.provider.play(asyncio.Event())
        assert isinstance(await line.stop(await line.start(job), "shutdown"), Restored)
        line.stopped = None
    result = await line.result(job)
    assert (result.status, result.attempts) == ("failed", 3)
    assert result.error is not None
    assert [attempt.code for attempt in result.error.attempts] == ["cancelled"] * 3


async def test_a_job_that_kills_workers_is_given_up(line: PlayedLine) -> None:
    job = job_for()
    await line.crash(job, "alpha", "alpha")
    result = await line.result(job, crashes=3)
    assert (result.status, line.provider.asked) == ("failed", [])
    assert result.error is not None
    assert result.error.code == "internal"
    assert "3 workers died" in result.error.message
    assert line.audited(job).unknown_attempts == 2


async def test_the_audit_adds_up_over_many_jobs(line: PlayedLine) -> None:
    line.provider.play(
        *(fault(ProviderFault) for _ in range(3)), answer(), fault(ProviderFault), answer()
    )
    asked = [job_for(prompt=f"question {n}") for n in range(40)]
    again = [job_for(prompt=f"question {n}") for n in range(40)]
    await asyncio.gather(*(line.result(job) for job in asked))
    await asyncio.gather(*(line.result(job) for job in again))
    with line.engine.connect() as connection:
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
async def test_any_answer_ends_its_job(line: PlayedLine, content: str) -> None:
    line.provider.play(answer(content))
    job = job_for()
    result = await line.result(job)
    assert result.status == ("failed" if "half" in content else "succeeded")
    assert line.row(job).status == result.status
    assert line.attempts(job) == [("alpha", "answered", None)]
    assert line.audited(job).cost_pico_usd == COST_PICO_USD
    assert line.celery(job).ready()


async def test_any_message_of_a_fault_ends_its_job(line: PlayedLine) -> None:
    line.provider.play(fault(ProviderFault, "half a \ud800 pair\x00", request_id="\ud800"))
    job = job_for("lone")
    await line.result(job)
    assert [state for _, state, _ in line.attempts(job)] == ["failed", "answered"]


async def test_results_wait_for_a_redis_that_is_down(
    valkey_factory: Callable[..., ValkeyServer], sqlite_url: str, tmp_path: Path
) -> None:
    server = valkey_factory(appendonly=True)
    async with played_line(sqlite_url, server.url, tmp_path) as line:
        silence = asyncio.Event()
        line.provider.play(silence)
        job = job_for()
        run: asyncio.Task[Any] = await line.start(job)
        await asyncio.to_thread(server.kill)
        silence.set()
        await asyncio.to_thread(
            wait_until, lambda: line.row(job).status == "succeeded", 10, "the record"
        )
        assert not run.done()
        await asyncio.to_thread(server.start)
        assert isinstance(await asyncio.wait_for(run, 20), Ended)
        assert line.celery(job).state == "SUCCESS"
