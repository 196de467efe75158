"""Failed jobs are queued again under their ids, with new tries."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from sqlalchemy import func, insert, select, update

from headgate import AsyncClient, Client, InvalidRequest, JobFailed, Settings, UnknownJob
from headgate.producer.submit.retry import RetryFilter, choose
from headgate.shared.broker.queues import all_queues
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ErrorReport
from tests.support.command import Ended, headgate
from tests.support.played import PlayedWorker, row_of, settings_for
from tests.support.servers import ValkeyServer

DAY_MS = 86_400_000


@pytest.fixture
def settings(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> Settings:
    return settings_for(valkey.url, database_url, tmp_path)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as opened:
        yield opened


@pytest.fixture
def worker(client: Client) -> PlayedWorker:
    return PlayedWorker(client.open())


def fail(worker: PlayedWorker, job_id: str, code: Any = "timeout", **others: Any) -> None:
    worker.start(job_id)
    error = ErrorReport(code=code, message="it failed", retryable=True)
    worker.end(job_id, status=others.pop("status", "failed"), error=error, content=None, **others)


def messages(client: Client, job_id: str) -> list[bytes]:
    """The job's messages on all queues."""
    at = client.open()
    queues = map(at.keys.queue, all_queues(at.catalog.classes))
    found: list[Any] = [one for queue in queues for one in at.redis.lrange(queue, 0, -1)]
    return [one for one in found if job_id.encode() in one]


def test_a_failed_job_runs_again_under_its_id_and_its_history_counts(
    client: Client, worker: PlayedWorker, valkey: ValkeyServer
) -> None:
    at = client.open()
    job = client.submit("x", model="gpt-4o-mini", deadline_s=60, on_limit="refuse")
    at.redis.flushdb()  # its message was taken by the worker
    began = now_ms() - DAY_MS
    old = {"submitted_at_ms": began, "deadline_at_ms": began + 60_000}
    envelope = worker.envelope(job.id).model_copy(update={"submitted_at_ms": began})
    text = envelope.encode().decode()
    with at.engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(envelope=text, **old))
        tried = {"job_id": job.id, "fence": 1, "n": 1, "model": "gpt-4o-mini", "provider": "openai",
                 "state": "failed", "started_at_ms": began, "waited_ms": 0}  # fmt: skip
        connection.execute(insert(attempts), [tried])
    fail(worker, job.id)
    stock = Celery(broker=valkey.url, backend=valkey.url, set_as_current=False)
    assert AsyncResult(job.id, app=stock).state == "FAILURE"
    with pytest.raises(JobFailed):
        job.result(timeout_s=30)

    again = client.retry(job.id)
    assert (again.id, again.status()) == (job.id, "queued")
    assert AsyncResult(job.id, app=stock).state == "PENDING"
    row = row_of(at, job.id)
    envelope = Envelope.decode(json.loads(row.envelope))
    assert (row.fence, envelope.forgiven_fence, row.result, row.finished_at_ms) == (
        2,
        1,
        None,
        None,
    )
    assert 0 < row.deadline_at_ms - now_ms() <= 60_000, "it has its time anew"
    assert abs(row.deadline_at_ms - envelope.deadline_at_ms) <= 1
    assert len(messages(client, job.id)) == 1
    with at.engine.connect() as connection:
        for table, count in ((audit, 0), (attempts, 1)):
            query = select(func.count()).select_from(table).where(table.c.job_id == job.id)
            assert connection.scalar(query) == count
    worker.start(job.id)
    worker.end(job.id)
    assert again.result(timeout_s=30).status == "succeeded"
    stock.close()


def test_a_job_that_auto_placed_is_placed_anew_and_another_keeps_its_model(
    client: Client, worker: PlayedWorker
) -> None:
    at = client.open()
    chosen, named = client.submit("Hi", model="auto"), client.submit("Hi", model="command-a")
    for job in (chosen, named):
        envelope = worker.envelope(job.id).model_copy(update={"model": "command-a"})
        values = {"model": "command-a", "envelope": envelope.encode().decode()}
        with at.engine.begin() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job.id).values(**values))
    for job in (chosen, named):
        fail(worker, job.id, "authentication")
    expected = client.route("Hi").model
    assert expected != "command-a"
    for job in (chosen, named):
        client.retry(job.id)
    assert row_of(at, chosen.id).model == worker.envelope(chosen.id).model == expected
    assert row_of(at, named.id).model == "command-a"


async def test_what_has_not_failed_is_refused_with_the_reason(
    client: Client, worker: PlayedWorker, settings: Settings
) -> None:
    waits, done, gone = (client.submit("x", model="gpt-4o-mini").id for _ in range(3))
    worker.end(done)
    fail(worker, gone)
    with client.open().engine.begin() as connection:
        connection.execute(update(jobs).where(jobs.c.id == gone).values(envelope=None))
    for job_id, reason in (
        (waits, "has not ended: it is queued"), (done, "has ended as succeeded"),
        (gone, "has no prompt any more"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=reason):
            client.retry(job_id)
    with pytest.raises(UnknownJob):
        client.retry("no-such-job")
    assert client.status(done) == "succeeded"
    expired = client.submit("x", model="gpt-4o-mini").id
    fail(worker, expired, "deadline", status="expired")
    async with AsyncClient(settings) as other:
        assert await (await other.retry(expired)).status() == "queued"


def test_the_command_counts_asks_and_retries_what_was_chosen(
    client: Client, worker: PlayedWorker, settings: Settings, tmp_path: Path
) -> None:
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_REDIS_URL": str(settings.redis_url),
           "HEADGATE_DATABASE_URL": str(settings.database_url)}  # fmt: skip

    def command(*words: str, code: int = 0, stdin: bytes = b"") -> Ended:
        ended = headgate(["retry", *words], env, stdin=stdin)
        assert ended.code == code, ended.err + ended.out
        return ended

    timeouts = [client.submit("x", model="gpt-4o-mini").id for _ in range(3)]
    other, cancelled = (client.submit("x", model="gpt-4o-mini").id for _ in range(2))
    for job_id in timeouts:
        fail(worker, job_id)
    fail(worker, other, "overloaded")
    client.cancel(cancelled)
    with client.open().engine.begin() as connection:
        old = {"finished_at_ms": now_ms() - DAY_MS}
        connection.execute(update(jobs).where(jobs.c.id == timeouts[0]).values(**old))
    engine = client.open().engine
    assert list(choose(engine, RetryFilter(code="timeout"))) == timeouts
    assert list(choose(engine, RetryFilter(code="timeout", since="2h"))) == timeouts[1:]

    refused = command("--status", "failed", stdin=b"n\n", code=130)
    assert "Retry 4 jobs (3 timeout, 1 overloaded)?" in refused.err
    assert client.status(other) == "failed"
    assert "use --yes" in command("--status", "failed", code=2).err
    asked = command("--status", "failed", "--code", "timeout", "--since", "2h", "--yes")
    assert asked.out == "2 jobs are queued again\n"
    assert [client.status(one) for one in timeouts] == ["failed", "queued", "queued"]
    by_id = command(timeouts[0], cancelled, "--json", code=1)
    assert [json.loads(line)["state"] for line in by_id.out.splitlines()] == ["queued", "refused"]
    assert command(other).out == f"{other} is queued again\n"
    assert "nothing to retry" in command("--status", "failed", "--yes").err
    for wrong in ([], ["--code", "timeout"], [other, "--status", "failed"], [other, "--code", "x"]):
        assert "give ids of jobs" in command(*wrong, code=2).err
    assert "there is no batch" in command("--batch", "batch_none", code=2).err
