"""Claim, ledger and audit on the record: one worker ends a job, once, with all that it cost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, Table, func, insert, select, text, update

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.rows import audit_row, job_row
from headgate.shared.database.tables import attempts, audit, job_metadata, jobs
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import Reply, Result, Usage
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.errors import AttemptTimeout, ProviderFault
from headgate.workers.stages.claim import Claim, Claims, EndedBefore
from headgate.workers.stages.conclude import Conclude, Conclusion
from headgate.workers.stages.ledger import Attempt, Ledger, Settlement
from tests.support.child import wait_until
from tests.support.rig import envelope


class Desk:
    """Claims of two workers, the ledger and the audit over one record."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.record = GroupCommit(engine)
        self.ledger = Ledger(self.record)
        self.first, self.second = Claims(self.record, "first"), Claims(self.record, "second")

    async def claim(self, job: Envelope, claims: Claims | None = None) -> Claim:
        claim = await (claims or self.first).take(job)
        assert isinstance(claim, Claim)
        return claim

    async def conclude(
        self, job: Envelope, claim: Claim, *settlements: Settlement, **fields: Any
    ) -> bool:
        writes: list[Any] = [Conclude.concluding(conclusion(job, claim, **fields))]
        writes += [self.ledger.settling(settlement) for settlement in settlements]
        return (await self.record.together(*writes))[0] is not None

    def rows(self, table: Table, job_id: str) -> list[Any]:
        key = table.c.id if table is jobs else table.c.job_id
        with self.engine.connect() as connection:
            return list(
                connection.execute(select(table).where(key == job_id).order_by(*table.primary_key))
            )

    def row(self, job_id: str) -> Any:
        [row] = self.rows(jobs, job_id)
        return row

    def queue(self, *queued: Envelope) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(jobs), [job_row(job, job.encode()) for job in queued])


def conclusion(job: Envelope, claim: Claim, status: Any = "succeeded", **fields: Any) -> Conclusion:
    at_ms = now_ms()
    result = Result(id=job.id, status=status, model=job.model, content="four", attempts=1)
    row = audit_row(job, result, cost_pico_usd=17, finished_at_ms=at_ms) | fields
    return Conclusion(job.id, claim.fence, result, at_ms, row)


def attempt_of(job: Envelope, claim: Claim, n: int = 1) -> Attempt:
    return Attempt(job.id, claim.fence, n, "gpt-4o-mini", "openai", now_ms(), waited_ms=5)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    desk = Desk(engine)
    yield desk
    await desk.record.close()


async def test_a_claimed_job_is_running_in_the_name_of_its_worker(desk: Desk) -> None:
    job = envelope()
    desk.queue(job)
    claim = await desk.claim(job)
    assert (claim.fence, claim.cancel_wanted, claim.history) == (1, False, ())
    row = desk.row(job.id)
    assert (row.status, row.worker, row.fence) == ("running", "first", 1)
    assert row.started_at_ms > 0


async def test_a_job_of_a_stock_producer_gets_its_row(desk: Desk) -> None:
    job = envelope(tenant="acme", user="u1", metadata={"run": 7, "list": [1]})
    await desk.claim(job)
    assert [(row.key, row.value) for row in desk.rows(job_metadata, job.id)] == [("run", "7")]
    row = desk.row(job.id)
    assert (row.status, row.tenant, row.user_id) == ("running", "acme", "u1")
    assert row.envelope == job.encode().decode()


async def test_two_workers_that_meet_a_job_without_a_row_have_different_fences(
    desk: Desk, database_url: str
) -> None:
    job = envelope()
    other = open_engine(database_url)
    with other.begin() as first:
        row = job_row(job, job.encode()) | {"status": "running", "fence": 1}
        first.execute(insert(jobs), row)
        second = desk.second.take(job)
        if other.dialect.name == "postgresql":
            await asyncio.to_thread(wait_until, lambda: _waits(other), 10, "the second worker")
    other.dispose()
    claim = await second
    assert isinstance(claim, Claim)
    assert claim.fence == 2


def _waits(engine: Engine) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    with reading(engine) as connection:
        return bool(connection.execute(text(query)).scalar())


async def test_a_job_that_claims_the_line_of_another_is_no_job(desk: Desk) -> None:
    first, second = (
        envelope().model_copy(update={"batch_id": "b", "batch_line": 1}) for _ in range(2)
    )
    assert isinstance(await desk.first.take(first), Claim)
    with pytest.raises(UnreadableMessage):
        await desk.first.take(second)


async def test_hundreds_are_claimed_at_once(desk: Desk) -> None:
    queued = [envelope() for _ in range(300)]
    desk.queue(*queued[:150])
    claims = await asyncio.gather(*(desk.first.take(job) for job in queued))
    assert all(isinstance(claim, Claim) and claim.fence == 1 for claim in claims)


async def test_the_fence_grows_with_each_claim_and_the_first_start_stays(desk: Desk) -> None:
    job = envelope()
    await desk.claim(job)
    began_ms = desk.row(job.id).started_at_ms
    assert (await desk.claim(job, desk.second)).fence == 2
    row = desk.row(job.id)
    assert (row.worker, row.started_at_ms) == ("second", began_ms)


async def test_a_late_worker_cannot_end_a_job(desk: Desk) -> None:
    job = envelope()
    late = await desk.claim(job, desk.first)
    now = await desk.claim(job, desk.second)
    assert not await desk.conclude(job, late, status="failed")
    assert desk.row(job.id).status == "running"
    assert await desk.conclude(job, now)
    assert not await desk.conclude(job, late, status="failed")
    assert desk.row(job.id).status == "succeeded"
    assert [row.status for row in desk.rows(audit, job.id)] == ["succeeded"]


async def test_a_late_worker_cannot_release_or_defer_a_job(desk: Desk) -> None:
    job = envelope()
    late = await desk.claim(job, desk.first)
    await desk.claim(job, desk.second)
    await desk.first.release(job, late)
    await desk.first.defer(job, late, 99)
    row = desk.row(job.id)
    assert (row.status, row.worker, row.retry_at_ms) == ("running", "second", None)


async def test_of_two_ends_in_one_transaction_the_holder_wins(desk: Desk) -> None:
    job = envelope()
    late = await desk.claim(job, desk.first)
    now = await desk.claim(job, desk.second)
    told = await asyncio.gather(desk.conclude(job, late, status="failed"), desk.conclude(job, now))
    assert list(told) == [False, True]
    assert desk.row(job.id).status == "succeeded"


async def test_a_job_ends_once_even_if_its_holder_says_so_twice_at_once(desk: Desk) -> None:
    job, others = envelope(), [envelope() for _ in range(5)]
    claim = await desk.claim(job)
    held = [(other, await desk.claim(other)) for other in others]
    told = await asyncio.gather(
        desk.conclude(job, claim),
        desk.conclude(job, claim),
        *(desk.conclude(other, its) for other, its in held),
    )
    assert told == [True] * 7  # a commit that was made but not answered is made again
    assert len(desk.rows(audit, job.id)) == 1


async def test_a_job_that_has_ended_is_not_claimed_again(desk: Desk) -> None:
    job = envelope()
    await desk.conclude(job, await desk.claim(job))
    again = await desk.second.take(job)
    assert isinstance(again, EndedBefore)
    assert again.result is not None
    assert Result.from_json(orjson.loads(again.result)).content == "four"
    assert desk.row(job.id).fence == 1


async def test_a_message_of_a_job_that_was_pruned_starts_no_second_run(desk: Desk) -> None:
    job, other = envelope(), envelope()
    await desk.conclude(job, await desk.claim(job))
    with desk.engine.begin() as connection:
        connection.execute(jobs.delete().where(jobs.c.id == job.id))
    again, claim = await asyncio.gather(desk.second.take(job), desk.second.take(other))
    assert again == EndedBefore(None)
    assert isinstance(claim, Claim)
    assert desk.rows(jobs, job.id) == []


async def test_the_wish_to_cancel_is_seen_at_the_claim(desk: Desk) -> None:
    job = envelope()
    desk.queue(job)
    with desk.engine.begin() as connection:
        connection.execute(update(jobs).values(cancel_wanted=True))
    assert (await desk.claim(job)).cancel_wanted


async def test_released_is_queued_and_deferred_tells_until_when(desk: Desk) -> None:
    one, two = envelope(), envelope()
    await desk.first.release(one, await desk.claim(one))
    await desk.first.defer(two, await desk.claim(two), 1_795_000_000_000)
    assert (desk.row(one.id).status, desk.row(one.id).retry_at_ms) == ("queued", None)
    assert (desk.row(two.id).status, desk.row(two.id).retry_at_ms) == (
        "deferred", 1_795_000_000_000,
    )  # fmt: skip
    assert (await desk.claim(two)).fence == 2
    assert desk.row(two.id).retry_at_ms is None


# The ledger.


async def test_an_attempt_is_on_record_before_it_leaves_and_settled_after(desk: Desk) -> None:
    job = envelope()
    attempt = attempt_of(job, await desk.claim(job))
    await desk.ledger.open(attempt)
    [row] = desk.rows(attempts, job.id)
    assert (row.state, row.settled_at_ms, row.waited_ms, row.n) == ("open", None, 5, 1)
    reply = Reply("four", "stop", Usage(10, 4, 2, 7, 3), request_id="req_1")
    await desk.ledger.settle(attempt.answered(reply, 900, attempt.started_at_ms + 250))
    [row] = desk.rows(attempts, job.id)
    assert (row.state, row.cost_pico_usd, row.latency_ms) == ("answered", 900, 250)
    assert (row.http_status, row.request_id) == (200, "req_1")
    tokens = (row.input_tokens, row.cached_input_tokens, row.cache_write_tokens)
    assert (*tokens, row.output_tokens, row.reasoning_tokens) == (10, 4, 2, 7, 3)


async def test_a_failed_attempt_costs_nothing_and_one_of_unknown_bill_is_unknown(
    desk: Desk,
) -> None:
    job = envelope()
    claim = await desk.claim(job)
    refused, silent = attempt_of(job, claim, 1), attempt_of(job, claim, 2)
    for attempt in (refused, silent):
        await desk.ledger.open(attempt)
    fault = ProviderFault("broken\x00", http_status=500, request_id="r\x00" + "x" * 300)
    await desk.ledger.settle(refused.failed(fault, now_ms()))
    await desk.ledger.settle(silent.failed(AttemptTimeout("no answer", billed=None), now_ms()))
    first, second = desk.rows(attempts, job.id)
    assert (first.state, first.code, first.cost_pico_usd) == ("failed", "provider_error", 0)
    assert (first.message, first.http_status) == ("broken", 500)
    assert (second.state, second.code, second.cost_pico_usd) == ("unknown", "timeout", None)


async def test_attempts_left_open_are_unknown_at_the_next_claim_and_in_its_history(
    desk: Desk,
) -> None:
    job, other = envelope(), envelope()
    claim = await desk.claim(job)
    failed, left_open = attempt_of(job, claim, 1), attempt_of(job, claim, 2)
    await desk.ledger.open(failed)
    await desk.ledger.settle(failed.failed(ProviderFault("broken", http_status=503), now_ms()))
    await desk.ledger.open(left_open)
    await desk.ledger.open(attempt_of(other, await desk.claim(other)))

    again = await desk.claim(job, desk.second)
    assert [(past.state, past.code, past.http_status) for past in again.history] == [
        ("failed", "provider_error", 503), ("unknown", None, None),
    ]  # fmt: skip
    assert [row.state for row in desk.rows(attempts, job.id)] == ["failed", "unknown"]
    assert [row.state for row in desk.rows(attempts, other.id)] == ["open"]


async def test_who_lost_the_claim_opens_no_attempt(desk: Desk) -> None:
    job, other = envelope(), envelope()
    late = attempt_of(job, await desk.claim(job))
    theirs = await desk.claim(job, desk.second)
    ours = attempt_of(other, await desk.claim(other))
    opened = await asyncio.gather(desk.ledger.open(late), desk.ledger.open(ours))
    assert list(opened) == [False, True]
    assert await desk.conclude(job, theirs)
    assert not await desk.ledger.open(late)
    assert not await desk.ledger.open(attempt_of(job, theirs))
    assert desk.rows(attempts, job.id) == []
    assert [row.state for row in desk.rows(attempts, other.id)] == ["open"]


async def test_the_end_of_a_job_and_of_its_last_attempt_are_one_transaction(desk: Desk) -> None:
    job = envelope()
    claim = await desk.claim(job)
    attempt = attempt_of(job, claim)
    await desk.ledger.open(attempt)
    reply = Reply("four", "stop", Usage(1, 0, 0, 1, 0))
    unwritable = replace(attempt.answered(reply, 5, now_ms()), usage=Usage(input_tokens=2**70))
    with pytest.raises(Exception):  # noqa: B017, PT011  # the two databases raise different ones
        await desk.conclude(job, claim, unwritable)
    assert desk.row(job.id).status == "running"
    assert desk.rows(audit, job.id) == []
    assert [row.state for row in desk.rows(attempts, job.id)] == ["open"]

    assert await desk.conclude(job, claim, attempt.answered(reply, 5, now_ms()))
    assert [row.state for row in desk.rows(attempts, job.id)] == ["answered"]


async def test_the_end_of_a_job_whose_audit_line_cannot_be_written_is_not_on_record(
    desk: Desk,
) -> None:
    job, good = envelope(), envelope()
    claim, its = await desk.claim(job), await desk.claim(good)
    told = await asyncio.gather(
        desk.conclude(job, claim, attempts=2**70), desk.conclude(good, its),
        return_exceptions=True,
    )  # fmt: skip
    assert isinstance(told[0], Exception)
    assert told[1] is True
    assert desk.row(job.id).status == "running"
    assert desk.row(good.id).status == "succeeded"


async def test_hundreds_end_at_once_each_with_its_line(desk: Desk) -> None:
    queued = [envelope() for _ in range(300)]
    claims = await asyncio.gather(*(desk.claim(job) for job in queued))
    opened = [attempt_of(job, claim) for job, claim in zip(queued, claims, strict=True)]
    await asyncio.gather(*(desk.ledger.open(attempt) for attempt in opened))
    reply = Reply("four", "stop", Usage(1, 0, 0, 1, 0))
    told = await asyncio.gather(
        *(
            desk.conclude(job, claim, attempt.answered(reply, 5, now_ms()))
            for job, claim, attempt in zip(queued, claims, opened, strict=True)
        )
    )
    assert told == [True] * 300
    with desk.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(audit)) == 300
        assert connection.scalar(select(func.sum(attempts.c.cost_pico_usd))) == 1500
