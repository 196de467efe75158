"""A streamed job in the worker: what reaches its readers, and what follows a broken stream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from headgate.shared.admission.grant import Held
from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.cost.price import usd_text
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import Request
from headgate.shared.job.result import Usage
from headgate.shared.job.result_text import decode_result
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.errors import Overloaded
from headgate.workers.pipeline.outcome import Ended, Restored
from headgate.workers.provider import Answer, AnswerSink, MadePart
from headgate.workers.stages.ledger import Ledger, Settlement
from headgate.workers.stages.stream import (
    ENTRY_BYTES,
    MOST_CHARS,
    MOST_EVENT_BYTES,
    STREAM_BYTES,
    TOGETHER,
    DeltaWriter,
)
from tests.support.child import BUSY, wait_until
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
from tests.support.stages import with_stages


@pytest.fixture
async def played(valkey: ValkeyServer, tmp_path: Path) -> AsyncIterator[PlayedPipeline]:
    async with played_pipeline(f"sqlite:///{tmp_path}/headgate.db", valkey.url, tmp_path) as played:
        yield played


@pytest.fixture
def redis(valkey: ValkeyServer) -> Redis:
    return Redis.from_url(valkey.url)


def written(redis: Redis, job: Envelope) -> list[tuple[str, str]]:
    """Id and text of all pieces of the job."""
    entries: list[tuple[bytes, dict[bytes, bytes]]] = redis.xrange(Keys().deltas(job.id))  # type: ignore[assignment]  # as RESP2 gives it
    return [(name.decode(), fields[b"d"].decode()) for name, fields in entries]


async def until_written(redis: Redis, job: Envelope, text: str) -> None:
    """Wait up to 5 s until the text of all pieces is this."""

    def is_there() -> bool:
        return "".join(piece for _, piece in written(redis, job)) == text

    await asyncio.to_thread(wait_until, is_there, 5, f"{text!r}")


HEAD, FIRST, LAST = b'{"n":0}', b'{"n":1}', b'{"n":2}'


def events_of(redis: Redis, job: Envelope) -> list[tuple[str, list[bytes]]]:
    """Id and events of all pieces of the job."""
    entries: list[tuple[bytes, dict[bytes, bytes]]] = redis.xrange(Keys().deltas(job.id))  # type: ignore[assignment]  # as RESP2 gives it
    assert {fields[b"k"] for _, fields in entries} <= {b"openai"}
    return [(name.decode(), fields[b"e"].split(b"\n")) for name, fields in entries]


async def until_ended(redis: Redis, job: Envelope, event: bytes) -> None:
    """Wait up to 5 s until this event is written."""

    def is_there() -> bool:
        return any(event in events for _, events in events_of(redis, job))

    await asyncio.to_thread(wait_until, is_there, 5, f"{event!r}")


async def test_pieces_are_there_while_the_answer_is_made(
    played: PlayedPipeline, redis: Redis
) -> None:
    silence = asyncio.Event()
    played.provider.play("fo", "ur", silence)
    job = job_for(stream=True)
    running = await played.start(job)
    await until_written(redis, job, "four")
    assert written(redis, job)[0] == ("1-1", "fo")
    silence.set()
    await running
    assert played.row(job).status == "succeeded"
    assert 0 < redis.pttl(Keys().deltas(job.id)) <= 3_600_000


async def test_a_job_that_does_not_ask_for_it_is_not_streamed(
    played: PlayedPipeline, redis: Redis
) -> None:
    played.provider.play("fo", answer())
    job = job_for()
    assert (await played.result(job)).content == "four"
    assert written(redis, job) == []


async def test_what_fails_before_its_first_piece_is_tried_again(played: PlayedPipeline) -> None:
    played.provider.play(fault(Overloaded), "fo", answer())
    result = await played.result(job_for(stream=True))
    assert (result.status, result.attempts) == ("succeeded", 2)


async def test_what_fails_after_its_first_piece_is_neither_repeated_nor_replaced(
    played: PlayedPipeline,
) -> None:
    played.provider.play("fo", fault(Overloaded, "too much", billed=None))
    job = job_for("polite", stream=True)
    result = await played.result(job)
    assert result.status == "failed"
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("overloaded", True)
    assert result.error.message == "the answer broke off: too much"
    assert played.attempts(job) == [("polite", "unknown", "overloaded")]
    assert played.audited(job).unknown_attempts == 1


class HeldUpLedger(Ledger):
    """Settles an attempt only once it may."""

    def __init__(self, record: GroupCommit) -> None:
        super().__init__(record)
        self.due, self.may = asyncio.Event(), asyncio.Event()

    async def settle(self, settlement: Settlement) -> None:
        """Tell that a settlement is due, and make it later."""
        self.due.set()
        await self.may.wait()
        await super().settle(settlement)


@pytest.mark.parametrize("pieces", [["fo"], []], ids=["broke off", "failed before"])
async def test_followers_do_not_share_a_broken_answer_stopped_while_it_is_settled(
    played: PlayedPipeline, pieces: list[str]
) -> None:
    played.provider.play(*pieces, fault(Overloaded))
    ledger = HeldUpLedger(played.record)
    played.pipeline = with_stages(played.pipeline, ledger=ledger)
    job = job_for(stream=True)
    run = asyncio.ensure_future(played.run(job, grant=Held("held", "alpha")))
    await asyncio.wait_for(ledger.due.wait(), 10 * BUSY)
    played.stopped = "timeout"
    run.cancel()
    ledger.may.set()
    outcome = await asyncio.wait_for(run, 10 * BUSY)
    assert isinstance(outcome, Ended)
    assert outcome.result.error is not None
    assert outcome.result.error.code == "timeout"
    flight = played.pipeline.single_flight
    shared = await flight.failure(job.request, "alpha", frozenset({"alpha", "beta"}))
    assert (shared is None) == bool(pieces)


async def test_a_streamed_answer_is_in_the_cache_for_all(played: PlayedPipeline) -> None:
    played.provider.play("fo", answer())
    await played.result(job_for(stream=True))
    for streams in (True, False):
        result = await played.result(job_for(stream=streams))
        assert (result.cached, result.content) == ("exact", "four")
    assert len(played.provider.asked) == 1


async def test_usage_that_a_stream_does_not_tell_leaves_its_price_unknown(
    played: PlayedPipeline,
) -> None:
    played.provider.play("fo", answer(counted=False))
    assert (await played.result(job_for(stream=True))).cost_usd is None


async def test_a_cancelled_stream_closes_its_call(played: PlayedPipeline) -> None:
    played.provider.play("fo", asyncio.Event())
    job = job_for(stream=True)
    await played.stop(await played.start(job), "cancelled")
    assert played.provider.cut == 1
    assert played.row(job).status == "cancelled"
    assert played.attempts(job) == [("alpha", "unknown", "cancelled")]


class FailsAfterItsHead(Scripted):
    """Fails once after the head of its stream, then answers."""

    async def ask(self, request: Request, **given: Any) -> Answer:
        sink: AnswerSink = given["sink"]
        sink.event(b'{"n":"head %d"}' % len(self.asked), dialect="openai", has_content=False)
        self.asked.append(Asked(request, given["model"], given["timeout_s"], None, streamed=True))
        if len(self.asked) == 1:
            sink.broke_off(MadePart(Usage(input_tokens=10), ""))
            raise fault(Overloaded, billed=None)
        sink.text("four")
        sink.event(FIRST, dialect="openai", has_content=True)
        return answer()


async def test_a_fault_before_the_first_part_is_retried_and_its_head_is_not_handed_on(
    played: PlayedPipeline, redis: Redis
) -> None:
    played.provider = FailsAfterItsHead()
    job = job_for(stream=True, events=True)
    result = await played.result(job)
    assert (result.status, result.attempts) == ("succeeded", 2)
    await until_ended(redis, job, FIRST)
    assert events_of(redis, job) == [("1-1", [b'{"n":"head 1"}', FIRST])]
    assert played.audited(job).cost_pico_usd == COST_PICO_USD + 10 * 1_000_000
    equal = job_for()
    assert (await played.result(equal)).cached == "exact"
    assert played.audited(equal).saved_pico_usd == COST_PICO_USD


class BreaksOff(Scripted):
    """Breaks off, or waits to be cancelled, when a part of the answer is made."""

    error: Exception | None = None
    usage = Usage(input_tokens=10)

    async def ask(self, request: Request, **given: Any) -> Answer:
        sink: AnswerSink = given["sink"]
        self.asked.append(Asked(request, given["model"], given["timeout_s"], None, streamed=True))
        sink.event(FIRST, dialect="openai", has_content=True)
        try:
            if self.error is not None:
                raise self.error
            await asyncio.Event().wait()
        finally:
            sink.broke_off(MadePart(self.usage, "one two three four"))
        raise AssertionError


@pytest.mark.parametrize("how", ["cancelled", "broken"])
async def test_what_was_made_of_a_broken_answer_is_billed_to_its_job(
    how: str, played: PlayedPipeline, redis: Redis
) -> None:
    played.provider = provider = BreaksOff()
    job = job_for(stream=True, events=True)
    if how == "broken":
        provider.error = fault(Overloaded, billed=None)
        result = await played.result(job)
    else:
        running = await played.start(job)
        await until_ended(redis, job, FIRST)
        await played.stop(running, "cancelled")
        result = decode_result(played.row(job).result)
    assert result.status == ("failed" if how == "broken" else "cancelled")
    assert result.usage.input_tokens == 10
    assert 4 <= result.usage.output_tokens <= 8
    pico_usd = 10 * 1_000_000 + result.usage.output_tokens * 2_000_000
    assert result.cost_usd == usd_text(pico_usd)
    line = played.audited(job)
    assert (line.cost_pico_usd, line.unknown_attempts) == (pico_usd, 1)
    assert [state for _, state, _ in played.attempts(job)] == ["unknown"]


async def test_counts_of_a_broken_answer_that_cannot_be_true_are_estimated(
    played: PlayedPipeline,
) -> None:
    played.provider = provider = BreaksOff()
    provider.error = fault(Overloaded, billed=None)
    provider.usage = Usage(2**43, 0, 0, 2**43)  # at these prices more than a column holds
    job = job_for(stream=True, events=True)
    result = await played.result(job)
    assert result.error is not None
    assert result.error.code == "overloaded"
    assert 1 <= result.usage.input_tokens <= 20
    assert 4 <= result.usage.output_tokens <= 8
    pico_usd = result.usage.input_tokens * 1_000_000 + result.usage.output_tokens * 2_000_000
    assert played.audited(job).cost_pico_usd == pico_usd
    assert [state for _, state, _ in played.attempts(job)] == ["unknown"]


async def test_a_later_claim_writes_above_what_an_earlier_one_wrote_and_shuts_it_out(
    played: PlayedPipeline, redis: Redis
) -> None:
    job = job_for(stream=True)
    played.provider.play("fo", asyncio.Event())
    running = await played.start(job)
    await until_written(redis, job, "fo")
    assert isinstance(await played.stop(running, "shutdown"), Restored)
    played.stopped = None
    played.provider.play("5", answer("5"))
    assert (await played.result(job)).content == "5"
    await until_written(redis, job, "fo5")
    late = DeltaWriter(played.batcher, Keys(), gather_s=0.001).of(job.id, 1)
    late.text("ur")
    late.text("!")
    await asyncio.sleep(0.05)
    assert written(redis, job) == [("1-1", "fo"), ("2-1", "5")]


async def test_a_piece_that_is_sent_twice_is_there_once(
    played: PlayedPipeline, redis: Redis
) -> None:
    job = job_for(stream=True)
    for n in (1, 1, 2):
        command = jobs.deliver(Keys(), job.id, fence=3, n=n, text=f"{n}", ttl_ms=60_000)
        script.run(redis, command)
    assert written(redis, job) == [("3-1", "1"), ("3-2", "2")]


async def test_pieces_are_gathered_while_redis_takes_its_time(
    played: PlayedPipeline, redis: Redis
) -> None:
    job = job_for(stream=True)
    pieces = DeltaWriter(played.batcher, Keys(), gather_s=60).of(job.id, 1)
    for piece in "abcdef":
        pieces.text(piece)
    await until_written(redis, job, "a")
    pieces = DeltaWriter(played.batcher, Keys(), gather_s=60).of(job.id, 2)
    for piece in "ghi":
        pieces.text(piece)
    pieces.end()
    await until_written(redis, job, "aghi")
    assert [text for _, text in written(redis, job)] == ["a", "g", "hi"]


async def test_pieces_that_redis_does_not_take_are_bounded_and_the_result_has_them_all(
    played: PlayedPipeline, redis: Redis, valkey: ValkeyServer
) -> None:
    pieces = [f"{n:07d} " for n in range(2 * MOST_CHARS // 8)]
    content = "".join(pieces)
    job = job_for(stream=True)

    class Outage(Scripted):
        """Answers while Redis stands still."""

        async def ask(self, *_: Any, sink: AnswerSink | None = None, **__: Any) -> Answer:
            assert sink is not None
            sink.text(pieces[0])
            await until_written(redis, job, pieces[0])
            valkey.freeze()
            for piece in pieces[1:]:
                sink.text(piece)
            asyncio.get_running_loop().call_later(1, valkey.thaw)
            return answer(content)

    played.provider = Outage()
    assert (await played.result(job)).content == content
    assert played.celery(job).get(timeout=60)["content"] == content
    read = "".join(text for _, text in written(redis, job))
    assert content.startswith(read)
    assert len(read) <= MOST_CHARS


async def test_what_waits_for_redis_is_bounded_in_characters_and_in_pieces(
    played: PlayedPipeline, valkey: ValkeyServer
) -> None:
    writer = DeltaWriter(played.batcher, Keys(), gather_s=0.001).of(job_for().id, 1)
    valkey.freeze()
    try:
        for n in range(2 * MOST_CHARS // 8):
            writer.text(f"{n:07d} ")
            assert writer.size <= MOST_CHARS
            assert writer.waiting_pieces <= TOGETHER
        assert writer.size == 0, "after a gap nothing is gathered any more"
    finally:
        valkey.thaw()


async def test_the_head_waits_for_the_first_event_with_a_part_of_the_answer(
    played: PlayedPipeline, redis: Redis
) -> None:
    job = job_for(stream=True, events=True)
    sink = DeltaWriter(played.batcher, Keys()).of(job.id, 1, events=True)
    sink.event(HEAD, dialect="openai", has_content=False)
    assert not sink.begun
    sink.text("a")
    sink.event(FIRST, dialect="openai", has_content=True)
    assert sink.begun
    await until_ended(redis, job, FIRST)
    sink.event(LAST, dialect="openai", has_content=True)
    sink.end()
    await until_ended(redis, job, LAST)
    assert events_of(redis, job) == [("1-1", [HEAD, FIRST]), ("1-2", [LAST])]
    assert written(redis, job) == [("1-1", "a"), ("1-2", "")]


async def test_an_answer_without_content_has_its_head_at_the_end(
    played: PlayedPipeline, redis: Redis
) -> None:
    job = job_for(stream=True, events=True)
    sink = DeltaWriter(played.batcher, Keys()).of(job.id, 1, events=True)
    sink.event(HEAD, dialect="openai", has_content=False)
    sink.end()
    await until_ended(redis, job, HEAD)


async def test_large_events_are_spread_over_entries_and_all_are_sent_at_the_end(
    played: PlayedPipeline, redis: Redis
) -> None:
    job = job_for(stream=True, events=True)
    sink = DeltaWriter(played.batcher, Keys(), gather_s=60).of(job.id, 1, events=True)
    sent = [b'{"n":%d,"x":"%s"}' % (n, b"x" * 10_000) for n in range(20)]
    for event in sent:
        sink.event(event, dialect="openai", has_content=True)
    sink.end()
    assert sink.size == 0
    await until_ended(redis, job, sent[-1])
    entries = events_of(redis, job)
    assert [event for _, events in entries for event in events] == sent
    assert [name for name, _ in entries] == [f"1-{n}" for n in range(1, len(entries) + 1)]
    assert all(sum(map(len, events)) <= ENTRY_BYTES for _, events in entries)


async def test_events_that_wait_and_all_that_are_written_are_bounded(
    played: PlayedPipeline, redis: Redis, valkey: ValkeyServer
) -> None:
    job = job_for(stream=True, events=True)
    sink = DeltaWriter(played.batcher, Keys()).of(job.id, 1, events=True)
    event = b'"%s"' % (b"x" * 20_000)
    valkey.freeze()
    try:
        for _ in range(2 * MOST_EVENT_BYTES // len(event)):
            sink.event(event, dialect="openai", has_content=True)
            assert sink.size <= MOST_EVENT_BYTES
        assert sink.size == 0, "after a gap nothing is gathered any more"
    finally:
        valkey.thaw()
    whole = DeltaWriter(played.batcher, Keys()).of(job.id, 2, events=True)
    for _ in range(STREAM_BYTES // len(event) + 50):
        whole.event(event, dialect="openai", has_content=True)
        if whole.size > MOST_EVENT_BYTES / 2:
            await played.batcher.send("PING")
    whole.end()
    await played.batcher.send("PING")
    size: Any = redis.memory_usage(Keys().deltas(job.id))
    assert STREAM_BYTES / 2 < size < 2 * STREAM_BYTES


async def test_a_stream_through_a_short_outage_of_redis_misses_nothing(
    played: PlayedPipeline, redis: Redis, valkey: ValkeyServer
) -> None:
    job = job_for(stream=True)
    writer = DeltaWriter(played.batcher, Keys(), gather_s=0.001).of(job.id, 1)
    pieces = [f"{n:07d} " for n in range(4 * TOGETHER)]
    writer.text(pieces[0])
    await until_written(redis, job, pieces[0])
    valkey.freeze()
    try:
        for piece in pieces[1:]:
            writer.text(piece)
            assert writer.waiting_pieces <= TOGETHER
    finally:
        valkey.thaw()
    writer.end()
    await until_written(redis, job, "".join(pieces))
