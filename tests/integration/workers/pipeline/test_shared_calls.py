"""A call that equal requests share: who pays, how it fails, and that all lines are the bill."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import func, insert, select

from headgate.producer.results.cancel import cancel
from headgate.shared.admission.grant import Cached, Grant, Held, Shared
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker.keys import Keys
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.database.rows import audit_row, job_row
from headgate.shared.database.tables import audit, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Result, Usage
from headgate.workers.errors import Overloaded, RequestRefused, Unauthorized
from headgate.workers.pipeline.outcome import Deferred, Ended
from headgate.workers.provider import Answer, AnswerSink, MadePart
from headgate.workers.stages import cache, single_flight
from headgate.workers.stages.claim import Claim
from headgate.workers.stages.conclude import Conclusion
from tests.support.pipeline import (
    COST_PICO_USD,
    Asked,
    PlayedPipeline,
    Scripted,
    answer,
    fault,
    job_for,
    played_pipeline,
)
from tests.support.servers import ValkeyServer

HELD = Held("held", "alpha")
SHARED = Shared("alpha")


@pytest.fixture(params=[False, True], ids=["leader pays", "all pay"])
async def played(
    request: pytest.FixtureRequest,
    database_url: str,
    valkey: ValkeyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[PlayedPipeline]:
    # Those who share a call run one after another, and the machine may be slow.
    monkeypatch.setattr(single_flight, "WINDOW_S", 60)
    monkeypatch.setattr(cache, "WINDOW_S", 60)
    async with played_pipeline(database_url, valkey.url, tmp_path, even=request.param) as played:
        yield played


def follow(played: PlayedPipeline, leader: Envelope, count: int) -> list[Envelope]:
    """So many equal jobs that are queued and follow the leader's call."""
    equal = [leader.model_copy(update={"id": f"{leader.id}-{n}"}) for n in range(count)]
    with played.engine.begin() as connection:
        connection.execute(insert(jobs), [job_row(job, job.encode()) for job in equal])
    flight = Keys().flight(fingerprint(leader.request, "alpha"))
    with redis.Redis.from_url(played.redis_url) as client:
        client.zadd(flight, {job.id: leader.deadline_at_ms for job in equal})
    return equal


def with_fallback(job: Envelope, allowed: bool) -> Envelope:
    """Return the same job of a caller who allows other models, or forbids them."""
    request = job.request.model_copy(update={"fallback": allowed})
    return job.model_copy(update={"request": request})


def give_up(played: PlayedPipeline, client: redis.Redis, job: Envelope) -> None:
    """Cancel the job while it waits."""
    became = cancel(played.engine, client, Keys(), [job.id], result_ttl_s=60)
    assert became.ended.keys() == {job.id}


async def run(played: PlayedPipeline, job: Envelope, grant: Grant) -> Result:
    outcome = await played.run(job, grant=grant)
    assert isinstance(outcome, Ended)
    return outcome.result


def total(played: PlayedPipeline) -> int:
    """Return the sum of all audit lines in pico-USD."""
    with played.engine.connect() as connection:
        return int(connection.execute(select(func.sum(audit.c.cost_pico_usd))).scalar_one())


async def test_the_lines_of_all_who_share_a_call_add_up_to_its_price(
    played: PlayedPipeline,
) -> None:
    leader = job_for(prompt="same")
    gone, *others, last = follow(played, leader, 6)
    with redis.Redis.from_url(played.redis_url) as client:
        await asyncio.to_thread(give_up, played, client, gone)
        first = await run(played, leader, HELD)
        await asyncio.to_thread(give_up, played, client, last)
    shared = [await run(played, job, SHARED) for job in others]
    assert len(played.provider.asked) == 1
    assert {result.content for result in shared} == {first.content}
    assert [result.message for result in shared] == [first.message] * len(shared)
    assert {result.cached for result in shared} == {"shared"}
    assert total(played) == COST_PICO_USD
    costs = [played.audited(job).cost_pico_usd for job in (leader, gone, *others, last)]
    part = COST_PICO_USD // 6 if played.even else 0
    assert costs == [COST_PICO_USD - 5 * part, 0, *[part] * 4, part]
    assert [played.audited(job).saved_pico_usd for job in others] == [COST_PICO_USD - part] * 4


class BreaksOff(Scripted):
    """Breaks off once when a part of the answer is made, then answers."""

    async def ask(self, request: Request, **given: Any) -> Answer:
        if self.asked:
            return await super().ask(request, **given)
        self.asked.append(Asked(request, given["model"], given["timeout_s"], None, streamed=True))
        sink: AnswerSink = given["sink"]
        sink.event(b"{}", dialect="openai", has_content=True)
        sink.broke_off(MadePart(Usage(10, 0, 0, 20), "one two"))
        raise fault(Overloaded, billed=None)


async def test_nobody_pays_for_the_broken_answer_of_another(played: PlayedPipeline) -> None:
    played.provider = BreaksOff()
    leader = job_for(prompt="same", stream=True, events=True)
    others = follow(played, leader, 2)
    assert (await run(played, leader, HELD)).status == "failed"
    assert played.audited(leader).cost_pico_usd == COST_PICO_USD
    with redis.Redis.from_url(played.redis_url) as client:
        await asyncio.to_thread(give_up, played, client, others[0])
    assert played.audited(others[0]).cost_pico_usd == 0


async def test_an_end_that_is_written_again_is_told_as_it_was_written(
    played: PlayedPipeline,
) -> None:
    """Its commit was made, and the answer lost."""
    leader = job_for(prompt="same")
    follow(played, leader, 3)
    claim = await played.pipeline.claims.take(leader)
    assert isinstance(claim, Claim)
    result = Result(
        id=leader.id, status="succeeded", model="alpha", content="four" * 99, cost_usd="1",
        message={"choices": [{"message": {"content": "four" * 99}}]},
    )  # fmt: skip
    row = audit_row(leader, result, cost_pico_usd=10**12, finished_at_ms=now_ms())
    payers = await played.pipeline.single_flight.payers(leader.request, "alpha")
    end = Conclusion(leader.id, claim.fence, result, now_ms(), row, payers)
    [told] = await played.record.together(played.pipeline.conclude.concluding(end))
    [again] = await played.record.together(played.pipeline.conclude.concluding(end))
    assert told == again
    assert told.cost_usd == ("0.25" if played.even else "1")


async def test_a_call_that_failed_has_failed_for_all_who_waited_for_it(
    played: PlayedPipeline,
) -> None:
    leader = job_for(prompt="same", fallback=False)
    others = follow(played, leader, 3)
    played.provider.play(fault(RequestRefused, "malformed"))
    first = await run(played, leader, HELD)
    shared = [await run(played, job, SHARED) for job in others]
    assert first.error is not None
    assert [result.error for result in shared] == [first.error] * 3
    assert [(r.status, r.attempts, r.cached) for r in shared] == [("failed", 0, "shared")] * 3
    assert len(played.provider.asked) == 1


async def test_the_answer_of_a_stand_in_is_nothing_to_who_forbids_it(
    played: PlayedPipeline,
) -> None:
    leader = job_for(prompt="same")
    [other, strict, *_] = follow(played, leader, 2)
    strict = with_fallback(strict, False)
    played.provider.play(fault(Unauthorized, "no key"), answer("of beta"), answer("of alpha"))
    assert (await run(played, leader, HELD)).model_used == "beta"
    assert (await run(played, other, SHARED)).content == "of beta"
    own = await run(played, strict, SHARED)
    assert (own.content, own.model_used, own.cached) == ("of alpha", "alpha", None)


async def test_a_call_that_might_not_fall_back_has_not_failed_for_who_may(
    played: PlayedPipeline,
) -> None:
    leader = job_for(prompt="same", fallback=False)
    strict, free = follow(played, leader, 2)
    free = with_fallback(free, True)
    played.provider.play(fault(Unauthorized, "no key"), fault(Unauthorized, "no key"))
    failed = await run(played, leader, HELD)
    assert (await run(played, strict, SHARED)).error == failed.error
    assert (await run(played, free, SHARED)).model_used == "beta"


async def test_who_finds_neither_answer_nor_failure_asks_for_itself(played: PlayedPipeline) -> None:
    leader = job_for(prompt="same")
    [other] = follow(played, leader, 1)
    played.provider.play(answer("five"))
    assert (await run(played, other, SHARED)).content == "five"


async def test_a_job_whose_answer_in_the_cache_is_none_for_it_does_not_come_back_for_it(
    played: PlayedPipeline,
) -> None:
    """Else it would be handed out for that answer again as soon as it stands in played."""
    job = job_for(prompt="same", share=False)
    with redis.Redis.from_url(played.redis_url) as client:
        client.hset(Keys().limits(), "pool/custom/alpha", "rpm=1")
        client.hset(Keys().bucket("pool/custom/alpha", "key0"), mapping={"rpm.level": 0})
    outcome = await played.run(job, grant=Cached("alpha"))
    assert isinstance(outcome, Deferred)
    assert Ticket.decode(outcome.ticket).cached_as == ""


async def test_a_job_in_line_for_a_stand_in_takes_the_answer_that_is_there_for_it(
    played: PlayedPipeline,
) -> None:
    bought = await run(played, job_for("beta", prompt="same"), replace(HELD, model="beta"))
    waited = job_for("alpha", prompt="same")
    told = await run(played, waited, Cached("beta"))
    assert (told.content, told.cached, told.model_used) == (bought.content, "exact", "beta")
    assert told.fallback
    assert len(played.provider.asked) == 1
