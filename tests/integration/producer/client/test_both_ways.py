"""One suite for both clients on both ways: a program need not know which way it goes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from headgate import (
    Client,
    HeadgateError,
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobTimeout,
    Request,
    ResultExpired,
    StreamBroken,
    SubmitProgress,
    TierLimit,
    UnknownJob,
    WaitingFor,
    WrongUse,
)
from headgate.shared.database.tables import jobs
from headgate.shared.job.result import ErrorReport, FailedAttempt
from tests.support.both_ways import WAYS, AnyClient, PlayedHouse, deliver, played_house
from tests.support.child import BUSY

PATIENT_S = 30 * BUSY


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedHouse]:
    folder = tmp_path_factory.mktemp("house")
    (catalog := folder / "catalog.toml").write_text("[tiers.tight]\nrpm = 1\n")
    with played_house(folder, catalog=catalog) as found:
        yield found


@pytest.fixture(params=WAYS)
async def client(request: pytest.FixtureRequest, house: PlayedHouse) -> AsyncIterator[AnyClient]:
    async with house.asked(request.param) as found:
        yield found


async def ended(house: PlayedHouse, job_id: str, **fields: Any) -> Any:
    """The result of a job that the played worker has ended."""
    return await asyncio.to_thread(house.worker.end, job_id, **fields)


async def raised(kind: type[HeadgateError], call: Any) -> Any:
    """The error of exactly this kind that the call raises."""
    with pytest.raises(kind) as caught:
        await call
    assert type(caught.value) is kind
    return caught.value


def facts(error: HeadgateError) -> Mapping[str, Any]:
    """What a program can read from an error."""
    return {"text": str(error), **vars(error)}


async def write(house: PlayedHouse, job_id: str, *pieces: str, fence: int = 1) -> None:
    """Write the pieces of an answer as a worker does."""
    await asyncio.to_thread(deliver, house.worker, job_id, *pieces, fence=fence)


async def test_a_job_goes_from_submit_to_its_result(client: AnyClient, house: PlayedHouse) -> None:
    job = await client.submit("Hello", metadata={"a": 1})
    assert await client.status(job.id) == await client.job(job, "status") == "queued"
    queued = await client.result(job.id)
    assert (queued.status, queued.metadata) == ("queued", {"a": 1})
    assert isinstance(queued.waiting_for, WaitingFor)
    waiting = asyncio.create_task(client.job(job, "result", timeout_s=PATIENT_S))
    await asyncio.sleep(0)
    result = await ended(house, job.id)
    assert await waiting == result
    assert await client.result(job.id) == result
    assert await client.result(job.id, wait=True) == result
    assert await client.result(job.id, timeout=5) == result
    assert await client.job(job, "wait", timeout_s=0) == result
    assert await client.status(job.id) == "succeeded"


async def test_a_request_arrives_as_it_was_given(client: AnyClient, house: PlayedHouse) -> None:
    given: Any = {
        "messages": [{"role": "user", "content": "Grüße \N{SNOWMAN}"}],
        "model": "gpt-4o-mini", "params": {"max_tokens": 5, "seed": 7}, "priority": "bulk",
        "deadline_s": 60, "cache": "off", "fallback": ["gpt-4o"], "max_cost_usd": 0.25,
        "metadata": {"run": 7, "deep": [{"a": None}]}, "stream": True,
    }  # fmt: skip
    ids = [(await client.submit(**given)).id]
    ids += await client.submit_many([given, Request(**{**given, "cache": {"mode": "off"}})])
    wanted = Request(**{**given, "cache": {"mode": "off"}, "max_cost_usd": "0.25"})
    for job_id in ids:
        request = house.worker.envelope(job_id).request
        own = {"idempotency_key": None, "tier": None}
        assert request.model_copy(update=own) == wanted.model_copy(update=own)


async def test_many_jobs_have_their_ids_in_order(client: AnyClient, house: PlayedHouse) -> None:
    ids = await client.submit_many(({"prompt": f"{n}"} for n in range(20)), samples=2)
    envelopes = [house.worker.envelope(job_id) for job_id in ids]
    made = [(envelope.request.prompt, envelope.sample) for envelope in envelopes]
    assert made == [(f"{n}", sample) for n in range(20) for sample in (1, 2)]
    assert await client.submit_many([]) == []
    for job_id in ids:
        await ended(house, job_id)
    results = await asyncio.gather(
        *(client.result(one, wait=True, timeout_s=PATIENT_S) for one in ids)
    )
    assert [result.id for result in results] == ids


async def test_many_results_come_together(client: AnyClient, house: PlayedHouse) -> None:
    ids = await client.submit_many(["a", "b", "c", "d"])
    house.worker.start(ids[2])
    first = await ended(house, ids[0])
    found = await client.results([*ids, ids[0]])
    assert [one.status for one in found] == [
        "succeeded", "queued", "running", "queued", "succeeded"
    ]  # fmt: skip
    assert found[0] == found[4] == first
    assert found[1].waiting_for is not None
    assert (await raised(UnknownJob, client.results([ids[0], "nobody"]))).job_id == "nobody"
    late = await raised(JobTimeout, client.results(ids, timeout_s=0.1))
    assert (late.timeout_s, late.job_ids) == (0.1, tuple(ids))
    waiting = asyncio.create_task(client.results(ids, timeout_s=PATIENT_S))
    for job_id in ids[1:]:
        await ended(house, job_id)
    assert [one.id for one in await waiting] == ids
    completed = [one.id async for one in client.as_completed(ids, timeout_s=PATIENT_S)]
    assert sorted(completed) == sorted(ids)


async def test_a_list_of_prompts_becomes_a_list_of_answers(
    client: AnyClient, house: PlayedHouse
) -> None:
    seen: list[int] = []

    def progress(found: SubmitProgress) -> None:
        seen.append(found.submitted)
        for job_id in found.ids:
            house.worker.end(job_id)

    answers = await client.map(["a", "b", "c"], progress=progress, metadata={"x": 1})
    assert [answer.content for answer in answers] == [f"answer to {one.id}" for one in answers]
    assert seen[0] == 3
    numbers = ({"prompt": f"{n}"} for n in range(6))
    ids = await client.submit_many(numbers, max_in_flight=2, progress=progress)
    assert [house.worker.envelope(one).request.prompt for one in ids] == [*"012345"]
    late = await client.map(["a"], return_errors=True, timeout_s=0.1)
    assert late[0].status == "queued"


async def test_errors_of_jobs_have_the_same_facts(client: AnyClient, house: PlayedHouse) -> None:
    job = await client.submit("Hello")
    late = await raised(JobTimeout, client.job(job, "result", timeout_s=0.2))
    assert (late.job_id, late.timeout_s) == (job.id, 0.2)
    assert late.waiting_for is not None
    await raised(JobTimeout, client.result(job.id, timeout_s=0))
    attempt = FailedAttempt("gpt-4o-mini", "overloaded", "busy", 503, 0)
    report = ErrorReport("overloaded", "all models are busy", True, [attempt])
    await ended(house, job.id, status="failed", content=None, error=report)
    failed = await raised(JobFailed, client.job(job, "result", timeout_s=PATIENT_S))
    assert (failed.status, failed.code, failed.job_id) == ("failed", "overloaded", job.id)
    assert failed.error["attempts"][0]["http_status"] == 503
    assert (await client.result(job.id)).error == report
    with house.worker.at.engine.begin() as connection:
        connection.execute(
            update(jobs).where(jobs.c.id == job.id).values(result=None, envelope=None)
        )
    for call in (client.result(job.id), client.result(job.id, wait=True)):
        expired = await raised(ResultExpired, call)
        assert (expired.status, expired.job_id) == ("failed", job.id)
        assert expired.finished_at is not None
    assert await client.status(job.id) == "failed"


@pytest.mark.parametrize("job_id", ["no-such-job", "a/b", "..", "", "ä" * 40, "x" * 200])
async def test_an_unknown_id_is_raised_as_such(client: AnyClient, job_id: str) -> None:
    async def streamed() -> None:
        async for _ in client.stream(job_id):
            pass

    calls = [
        client.result(job_id), client.result(job_id, timeout_s=PATIENT_S), client.status(job_id),
        client.cancel(job_id), client.retry(job_id), streamed(),
    ]  # fmt: skip
    for call in calls:
        assert (await raised(UnknownJob, call)).job_id == job_id


MISTAKES: list[tuple[str, Any]] = [
    ("modell", {"modell": 1}),
    ("priority", {"priority": "high"}),
    ("deadline_s", {"deadline_s": -1}),
    ("messages", {"messages": [], "prompt": None}),
    ("params.temprature", {"params": {"temprature": 1}}),
    ("model", {"model": "gpt-9"}),
    ("metadata.at", {"metadata": {"at": {1, 2}}}),
    ("metadata.x", {"metadata": {"x": math.nan}}),
    ("fallback[0]", {"fallback": ["gpt-9"]}),
    ("samples", {"samples": 2}),
]


@pytest.mark.parametrize(("field", "fields"), MISTAKES, ids=[name for name, _ in MISTAKES])
async def test_a_mistake_raises_the_same_error(
    house: PlayedHouse, client: AnyClient, field: str, fields: Any
) -> None:
    with Client(house.settings) as direct, pytest.raises(InvalidRequest) as wanted:
        direct.submit(**{"prompt": "x", **fields})
    found = await raised(InvalidRequest, client.submit(**{"prompt": "x", **fields}))
    assert found.field == field
    assert facts(found) == facts(wanted.value)
    many = [{"prompt": "good"}, {"prompt": "x", **fields}]
    before = len(await client.jobs(limit=1000))
    found = await raised(InvalidRequest, client.submit_many(many))
    assert (found.field, found.remedy) == (f"requests[1].{field}", wanted.value.remedy)
    assert len(await client.jobs(limit=1000)) == before, "nothing was queued"


async def test_wrong_arguments_are_refused_by_name(client: AnyClient) -> None:
    job: Any = await client.submit("Hello")

    async def streamed(**asked: Any) -> None:
        async for _ in client.stream(job.id, **asked):
            pass

    calls = {
        "job_id": [client.result(job), client.status(job), client.cancel(job), client.retry(job)],
        "timeout_s": [client.result(job.id, timeout_s="5"), streamed(timeout_s=-1)],
        "pulse_s": [streamed(pulse_s="5")],
        "after": [streamed(after="x")],
        "requests": [client.submit_many(5), client.submit_many("text")],
        "requests[1]": [client.submit_many(["a", 5])],
        "samples": [client.submit_many(["a"], samples=0)],
        "prompt": [client.submit(5), client.route("a", prompt="b")],
        "by": [client.usage(5), client.usage("tenats")],
        "status": [client.jobs(status="done")],
        "limit": [client.jobs(limit=0), client.usage(limit=0)],
        "since": [client.jobs(since=5), client.usage(since="1 hour")],
        "metadata.a": [client.jobs(metadata={"a": [1]})],
    }
    for field, wrong in calls.items():
        for call in wrong:
            with pytest.raises(InvalidRequest) as caught:
                await call
            assert caught.value.field == field


async def test_the_same_key_is_the_same_job(client: AnyClient) -> None:
    key = f"k-{id(client)}"
    first = await client.submit("one", idempotency_key=key)
    assert (await client.submit("one", idempotency_key=key)).id == first.id
    conflict = await raised(IdempotencyConflict, client.submit("two", idempotency_key=key))
    assert (conflict.key, conflict.job_id) == (key, first.id)
    assert await client.submit("one") != first


async def test_a_limit_refuses_with_its_facts(client: AnyClient) -> None:
    user = f"u-{id(client)}"
    asked: Any = {"tier": "tight", "user": user, "on_limit": "refuse"}
    await client.submit("one", **asked)
    refused = await raised(TierLimit, client.submit("two", **asked))
    assert refused.retry_after_s > 0
    assert refused.index is None
    refused = await raised(TierLimit, client.submit_many(["a", {"prompt": "b", **asked}]))
    assert refused.index == 1
    assert str(refused).startswith("requests[1]: ")
    checked = await client.check("three", **{**asked, "on_limit": "wait"})
    assert not checked.let_in
    assert checked.model == "gpt-4o-mini"


async def test_jobs_are_listed_and_found(client: AnyClient, house: PlayedHouse) -> None:
    run = f"r-{id(client)}"
    ids = await client.submit_many(
        [{"prompt": f"{n}", "metadata": {"run": run, "n": n}} for n in range(5)]
    )
    await ended(house, ids[0])
    listed = await client.jobs(metadata={"run": run})
    assert {one.id for one in listed} == {*ids}
    by_two = await client.jobs(metadata={"run": run}, limit=2)
    rest = await client.jobs(metadata={"run": run}, before=by_two[-1].id)
    assert [one.id for one in by_two + rest] == [one.id for one in listed]
    asked = {"metadata": {"run": run}, "status": "succeeded", "since": timedelta(hours=1)}
    [one] = await client.jobs(**asked)
    assert (one.id, one.model_used, one.cost_usd) == (ids[0], "gpt-4o-mini", "0.0000222")
    assert [one.id for one in await client.jobs(metadata={"run": run, "n": 3})] == [ids[3]]
    assert await client.jobs(metadata={"run": run}, model="gpt-4o") == []
    with Client(house.settings) as direct:
        assert direct.jobs(metadata={"run": run}) == listed
    assert (await raised(UnknownJob, client.jobs(before="nobody"))).job_id == "nobody"


async def test_a_job_is_cancelled_and_retried(client: AnyClient, house: PlayedHouse) -> None:
    first, second, third = await client.submit_many(["a", "b", "c"])
    result = await client.cancel(first)
    assert (result.status, result.error.code) == ("cancelled", "cancelled")
    await ended(house, second)
    found = await client.cancel_many([third, second, third], timeout_s=1)
    assert [one.status for one in found] == ["cancelled", "succeeded", "cancelled"]
    assert [one.id for one in found] == [third, second, third]
    fourth = await client.submit("d")
    unknown = await raised(UnknownJob, client.cancel_many(["nobody", fourth.id]))
    assert unknown.job_id == "nobody"
    assert await client.status(fourth.id) == "cancelled"
    assert await client.cancel_many([]) == []
    for seconds in (None, float("nan"), -1, "5"):
        refused = await raised(InvalidRequest, client.cancel(first, timeout_s=seconds))
        assert refused.field == "timeout_s"
    assert (await raised(InvalidRequest, client.cancel_many(first))).field == "job_ids"
    [again] = await client.cancel_many((one for one in [second]), timeout_s=float("inf"))
    assert again.id == second
    running = await client.submit("e")
    house.worker.start(running.id)
    assert (await client.cancel(running.id, timeout_s=0.1)).status == "running"
    report = ErrorReport("overloaded", "busy", True)
    await ended(house, running.id, status="failed", content=None, error=report)
    again = await client.retry(running.id)
    assert again.id == running.id
    assert await client.status(running.id) == "queued"
    refused = await raised(InvalidRequest, client.retry(second))
    assert refused.field == "job_id"


async def test_pieces_come_while_the_answer_is_made(client: AnyClient, house: PlayedHouse) -> None:
    job = await client.submit("Hello", stream=True)
    read: list[str] = []
    places: list[str] = []
    async for piece in client.stream(job.id, timeout_s=PATIENT_S, pulse_s=0.2):
        if piece:
            read.append(piece)
            places.append(piece.after)
        if not read:
            await write(house, job.id, "one ", "two ")
        elif len(read) == 2 and not piece.isspace():
            await ended(house, job.id, content="one two three four")
    assert read[:2] == ["one ", "two "]
    assert "".join(read) == "one two three four"
    assert [piece async for piece in client.stream(job.id)] != []
    rest = [piece async for piece in client.stream(job.id, after=places[0])]
    assert "".join(rest) == "two three four"
    rest = [piece async for piece in client.stream(job.id, after=8)]
    assert "".join(rest) == "three four"
    with pytest.raises(StreamBroken):
        [piece async for piece in client.stream(job.id, after="3-00000000")]


async def test_a_stream_ends_with_the_error_of_its_job(
    client: AnyClient, house: PlayedHouse
) -> None:
    async def read(job_id: str, **asked: Any) -> list[str]:
        return [piece async for piece in client.stream(job_id, **asked) if piece]

    job = await client.submit("Hello", stream=True)
    late = await raised(JobTimeout, read(job.id, timeout_s=0.3, pulse_s=0.1))
    assert (late.job_id, late.timeout_s) == (job.id, 0.3)
    await write(house, job.id, "one ")
    report = ErrorReport("connection", "the answer broke off", True)
    await ended(house, job.id, status="failed", content=None, error=report)
    failed = await raised(JobFailed, read(job.id))
    assert (failed.code, failed.job_id) == ("connection", job.id)
    broken = await client.submit("Hello", stream=True)
    await write(house, broken.id, "eins ")
    pieces = client.stream(broken.id)
    assert await anext(pieces) == "eins "
    await write(house, broken.id, "one ", fence=2)
    assert (await raised(StreamBroken, anext(pieces))).job_id == broken.id
    embedding = await client.submit(input="text", model="text-embedding-3-small")
    await ended(house, embedding.id, content=None, embeddings=[[0.5]])
    wrong = await raised(InvalidRequest, read(embedding.id))
    assert (wrong.field, wrong.value) == ("job", embedding.id)


async def test_reports_are_the_same_objects(client: AnyClient, house: PlayedHouse) -> None:
    by: Any = ["tenant", "model"]
    auto: Any = {"model": "auto"}
    with Client(house.settings) as direct:
        assert await client.usage(by, until="2026-01-01") == direct.usage(by, until="2026-01-01")
        assert (await client.usage(by, since="1h")).total == direct.usage(by, since="1h").total
        assert await client.route("Write a poem", **auto) == direct.route("Write a poem", **auto)
        assert await client.check("Hello") == direct.check("Hello")
        assert await client.cache_stats() == direct.cache_stats()
        assert await client.budgets() == direct.budgets()
        limits = await client.limits(pool="openai/gpt-4o-mini")
        assert limits.pools == direct.limits(pool="openai/gpt-4o-mini").pools
        health = await client.health()
        assert (health.down, health.workers) == (direct.health().down, 0)
    wrong = await raised(WrongUse, client.limits(pool="nobody/nothing"))
    assert wrong.value == "nobody/nothing"
