"""Many jobs at once with both clients: wait for all, submit in slices, and map prompts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headgate import (
    AsyncClient,
    Client,
    ErrorReport,
    InvalidRequest,
    JobTimeout,
    MapFailed,
    Result,
    SubmitProgress,
    UnknownJob,
)
from headgate.shared.settings import Settings
from tests.support.child import BUSY
from tests.support.played import PlayedWorker, ids_of, settings_for
from tests.support.servers import ValkeyServer


class Spelled(BaseModel):
    """A number in words."""

    word: str


@pytest.fixture
def settings(valkey: ValkeyServer, tmp_path: Path) -> Settings:
    return settings_for(valkey.url, f"sqlite:///{tmp_path}/headgate.db", tmp_path)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as opened:
        yield opened


@pytest.fixture
async def async_client(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(settings) as opened:
        yield opened


class Answering(threading.Thread):
    """A played worker that ends each new job: `answer` gives the fields of its result."""

    def __init__(self, worker: PlayedWorker, answer: Callable[[str], dict[str, Any]]) -> None:
        super().__init__(daemon=True)
        self.ended: set[str] = set()
        self.most_open = 0
        self._worker, self._answer = worker, answer
        self._ending = threading.Event()

    def __enter__(self) -> Answering:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join(10 * BUSY)

    def run(self) -> None:
        """End all jobs that are new, the last first, until it is stopped."""
        while not self._ending.wait(0.02):
            new = [one for one in ids_of(self._worker.at) if one not in self.ended]
            self.most_open = max(self.most_open, len(new))
            for job_id in reversed(new):
                request = self._worker.envelope(job_id).request
                self._worker.end(job_id, **self._answer(request.prompt or ""))
                self.ended.add(job_id)


@pytest.fixture
def worker(client: Client) -> PlayedWorker:
    return PlayedWorker(client.open())


def answer(prompt: str) -> dict[str, Any]:
    """Answer with the prompt in JSON; fail for the word fail."""
    if prompt != "fail":
        return {"content": f'{{"word": "{prompt}"}}'}
    error = ErrorReport("content_filtered", "not this one", False)
    return {"status": "failed", "content": None, "error": error}


def test_results_come_in_the_order_of_the_ids_and_as_the_jobs_end(
    client: Client, worker: PlayedWorker
) -> None:
    ids = client.submit_many(f"{n}" for n in range(4))
    assert [one.status for one in client.results(ids)] == ["queued"] * 4
    worker.end(ids[2], content="two")
    found = client.results([ids[2], ids[0], ids[2]])
    assert [one.content for one in found] == ["two", None, "two"]
    completed = client.as_completed(ids)
    assert next(completed).id == ids[2]
    for n in (3, 0, 1):
        worker.end(ids[n], content=f"{n}")
        assert next(completed).id == ids[n]
    assert list(completed) == []
    assert [one.content for one in client.results(ids, wait=True)] == ["0", "1", "two", "3"]
    assert client.results([]) == list(client.as_completed([])) == []


def test_a_wait_for_many_ends_in_time_and_says_what_is_left(
    client: Client, worker: PlayedWorker
) -> None:
    ids = client.submit_many(["a", "b"])
    worker.end(ids[1])
    found = client.as_completed(ids, timeout_s=0)
    assert next(found).id == ids[1]
    with pytest.raises(JobTimeout) as caught:
        next(found)
    assert (caught.value.job_id, caught.value.job_ids) == (ids[0], tuple(ids))
    assert caught.value.waiting_for is not None
    with pytest.raises(JobTimeout):
        client.results(ids, timeout_s=0.1)
    for call in (client.results, client.as_completed):
        with pytest.raises(UnknownJob, match="nobody"):
            list(call([ids[1], "nobody"]))
        with pytest.raises(InvalidRequest, match="job_ids"):
            call(ids[1])


def test_map_returns_answers_in_order_with_their_objects(
    client: Client, worker: PlayedWorker
) -> None:
    prompts = [f"n{n}" for n in range(20)]
    reports: list[SubmitProgress] = []
    with Answering(worker, answer) as answering:
        given: list[Any] = [*prompts, {"prompt": "own", "user": "u2"}]
        found = client.map(
            given, response_format=Spelled, tenant="acme", user="u1", idempotency_key="k",
            max_in_flight=8, progress=reports.append, timeout_s=60 * BUSY,
        )  # fmt: skip
        again = client.map(prompts, response_format=Spelled, tenant="acme", user="u1",
                           idempotency_key="k")  # fmt: skip
    assert [one.parsed.word for one in found] == [*prompts, "own"]
    assert [one.id for one in again] == [one.id for one in found[:20]], "paid once"
    assert answering.most_open <= 8
    assert (reports[-1].submitted, reports[-1].ended) == (21, 21)
    requests = [worker.envelope(one.id).request for one in found]
    assert {one.user for one in requests[:20]} == {"u1"}
    assert requests[20].user == "u2"
    assert requests[0].params["response_format"]["json_schema"]["name"] == "Spelled"


def test_map_loses_no_answer_when_a_job_fails_or_is_late(
    client: Client, worker: PlayedWorker
) -> None:
    with Answering(worker, answer):
        with pytest.raises(MapFailed, match="not this one") as caught:
            client.map(["a", "fail", "b"])
        both = client.map(["fail", "b"], return_errors=True, response_format=Spelled)
    results = caught.value.results
    assert [one.status for one in results] == ["succeeded", "failed", "succeeded"]
    assert (caught.value.job_id, caught.value.code) == (results[1].id, "content_filtered")
    assert (both[0].error is None, both[0].parsed, both[1].parsed.word) == (False, None, "b")
    late = client.map(["never"], return_errors=True, timeout_s=0.1)
    assert [one.ended for one in late] == [False]
    with pytest.raises(JobTimeout):
        client.map(["never"], timeout_s=0.1)
    for wrong in ("text", 5, {"prompt": "x"}):
        with pytest.raises(InvalidRequest, match=r"prompts: .*give a list of prompts"):
            client.map(wrong)  # type: ignore[arg-type]


def test_a_job_waits_retries_and_parses(client: Client, worker: PlayedWorker) -> None:
    job = client.submit("fail", response_format=Spelled)
    worker.end(job.id, **answer("fail"))
    assert job.wait(timeout_s=30).status == "failed"
    again = job.retry()
    assert (again.id, again.status()) == (job.id, "queued")
    worker.end(job.id, content='{"word": "seven"}')
    assert again.result(timeout_s=30).parsed == Spelled(word="seven")
    assert client.result(job.id, response_format=Spelled).parsed == Spelled(word="seven")
    assert client.result(job.id).parsed is None


async def test_the_async_client_does_the_same(
    async_client: AsyncClient, worker: PlayedWorker
) -> None:
    reports: list[int] = []

    async def prompts() -> AsyncIterator[str]:
        for n in range(12):
            yield f"n{n}"

    async def progress(report: SubmitProgress) -> None:
        reports.append(report.ended)

    with Answering(worker, answer) as answering:
        found = await async_client.map(
            prompts(), max_in_flight=4, progress=progress, response_format=Spelled
        )
        with pytest.raises(MapFailed):
            await async_client.map(["fail", "a"])
        job = await async_client.submit("n", response_format=Spelled)
        assert (await job.result(timeout_s=60)).parsed == Spelled(word="n")
        assert (await job.wait()).parsed == Spelled(word="n")
        assert "".join([piece async for piece in job.stream(after=1)]) == '"word": "n"}'
    assert [one.parsed.word for one in found] == [f"n{n}" for n in range(12)]
    assert answering.most_open <= 4
    assert reports[-1] == 12
    ids = [one.id for one in found]
    ended: list[Result] = [one async for one in async_client.as_completed(ids)]
    assert {one.id for one in ended} == set(ids)
    assert [one.id for one in await async_client.results(ids)] == ids
    with pytest.raises(UnknownJob):
        await async_client.results(["nobody"], wait=True)


async def test_thousands_are_awaited_together_and_nothing_is_left_behind(
    async_client: AsyncClient, worker: PlayedWorker
) -> None:
    ids = await async_client.submit_many(f"{n}" for n in range(300))
    waits = asyncio.create_task(async_client.results(ids, wait=True))
    pieces = async_client.as_completed(ids)
    first = asyncio.ensure_future(anext(pieces))
    await asyncio.to_thread(lambda: [worker.end(one) for one in reversed(ids)])
    assert [one.id for one in await waits] == ids
    assert (await first).id in ids
    await pieces.aclose()
    left = [task for task in asyncio.all_tasks() if "ended" in repr(task)]
    async with asyncio.timeout(10 * BUSY):
        await asyncio.gather(*left, return_exceptions=True)
