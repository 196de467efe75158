"""What a stock app's canvas asks for is sent when the job ends, once and under fixed ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from sqlalchemy import func, select

from headgate.producer.results.cancel import cancel
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import callbacks
from headgate.shared.errors import JobFailed, UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.workers.celery.canvas import prepared
from headgate.workers.errors import RateLimited, RequestRefused
from headgate.workers.maintenance.callbacks import CallbackUpkeep
from headgate.workers.pipeline.outcome import AlreadyTaken, Deferred, Ended
from headgate.workers.pipeline.pipeline import CANNOT_SEND
from tests.support.canvas import ask, mine, sent_to, take_jobs, user_app
from tests.support.pipeline import PlayedPipeline, fault, played_pipeline
from tests.support.servers import ValkeyServer

Redis = redis.Redis


@pytest.fixture
async def played(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[PlayedPipeline]:
    async with played_pipeline(sqlite_url, valkey.url, tmp_path) as played:
        yield played


@pytest.fixture
async def on_each(
    database_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[PlayedPipeline]:
    """A pipeline on each of the databases."""
    async with played_pipeline(database_url, valkey.url, tmp_path) as played:
        yield played


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[Redis]:
    with valkey.client(decode_responses=False) as opened:
        yield opened


@pytest.fixture
def app(valkey: ValkeyServer) -> Iterator[Celery]:
    with user_app(valkey.url) as app:
        yield app


def unsent(played: PlayedPipeline) -> int:
    """How many jobs have callbacks on record that may not have been sent."""
    with reading(played.engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(callbacks)) or 0)


async def fail(played: PlayedPipeline, job: Envelope) -> Any:
    played.provider.play(fault(RequestRefused, "no such thing"))
    return await played.result(job)


async def test_a_link_gets_the_result_and_the_result_knows_the_link(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    sent = ask(app).apply_async(link=mine(app, "after", "more"))
    [job] = take_jobs(client)
    result = await played.result(job)
    [after] = sent_to(client)
    assert (after.task, after.args) == ("mine.after", [result.as_json(), "more"])
    assert (after.headers["parent_id"], after.headers["root_id"]) == (job.id, job.id)
    assert sent.get(timeout=10) == result.as_json()
    assert [child.id for child in sent.children] == [after.id]
    assert unsent(played) == 0


async def test_links_and_groups_of_links_are_sent_each(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    links = [mine(app, "one"), mine(app, "two"), group(mine(app, "three"), mine(app, "four"))]
    sent = ask(app).apply_async(link=links)
    [job] = take_jobs(client)
    result = await played.result(job)
    after = sent_to(client)
    assert {one.task for one in after} == {f"mine.{n}" for n in ("one", "two", "three", "four")}
    assert all(one.args == [result.as_json()] for one in after)
    together, alone = sent.children
    assert sorted(len(child.results) for child in (together, alone)) == [2, 2]


async def test_a_callback_without_a_queue_goes_to_the_queue_of_the_apps(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    ask(app).apply_async(link=[mine(app, "after", queue=None), ask(app, "second").set(queue=None)])
    [job] = take_jobs(client)
    await played.result(job)
    assert [one.task for one in sent_to(client, "celery")] == ["mine.after"]


async def test_a_chain_goes_on_with_the_result(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    end: Any = chain(ask(app), mine(app, "middle"), mine(app, "last")).apply_async()
    [job] = take_jobs(client)
    result = await played.result(job)
    [middle] = sent_to(client)
    assert (middle.task, middle.args) == ("mine.middle", [result.as_json()])
    assert middle.id == end.parent.id
    [last] = middle.embed["chain"]
    assert last["options"]["task_id"] == end.id


async def test_a_failed_job_fails_the_rest_of_its_chain(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    errback = mine(app, "told")
    steps = chain(ask(app), mine(app, "middle"), mine(app, "last"))
    end: Any = steps.apply_async(link_error=errback)
    [job] = take_jobs(client)
    await fail(played, job)
    for answer in (end, end.parent, end.parent.parent):
        with pytest.raises(JobFailed, match="no such thing"):
            answer.get(timeout=10)
    told = sent_to(client)
    assert [(one.task, one.args) for one in told] == [("mine.told", [job.id])]
    found: Any = app.AsyncResult(job.id).result
    assert found.code == "invalid_request"


async def test_each_part_of_a_chord_counts_once_and_its_body_gets_all(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    body = chord([ask(app, f"number {n}") for n in range(3)])(mine(app, "merge", "title"))
    jobs = take_jobs(client)
    results = []
    for job in jobs:
        assert sent_to(client) == []
        results.append(await played.result(job))
        assert isinstance(await played.run(job), AlreadyTaken)
    [merge] = sent_to(client)
    assert (merge.id, merge.args) == (body.id, [[one.as_json() for one in results], "title"])


async def test_a_chord_with_a_failed_part_fails_its_body(
    played: PlayedPipeline, client: Redis, app: Celery, caplog: pytest.LogCaptureFixture
) -> None:
    merge = mine(app, "merge").on_error(mine(app, "told"))
    body = chord([ask(app, "one"), ask(app, "two")])(merge)
    good, bad = take_jobs(client)
    await played.result(good)
    await fail(played, bad)
    with pytest.raises(Exception, match="no such thing"):
        body.get(timeout=10)
    assert [(one.task, one.args) for one in sent_to(client)] == [("mine.told", [body.id])]
    assert "raised: 'ChordError'" in caplog.text
    assert "no such thing" not in caplog.text  # the error of a job may quote its request


async def test_a_cancelled_part_fails_the_chord_and_calls_no_errback(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    body = chord([ask(app).on_error(mine(app, "told"))] * 2)(mine(app, "merge"))
    first, second = take_jobs(client)
    await played.result(first)
    assert (await played.result(second, revoked=True)).status == "cancelled"
    with pytest.raises(Exception, match="cancelled"):
        body.get(timeout=10)
    assert sent_to(client) == []


async def test_a_part_that_is_cancelled_while_it_waits_fails_its_chord(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    body = chord([ask(app, "first"), ask(app, "second")])(mine(app, "merge"))
    first, second = take_jobs(client)
    await played.result(first)
    played.provider.play(fault(RateLimited, retry_after_ms=3_600_000))
    assert isinstance(await played.run(second), Deferred)
    cancelled = cancel(played.engine, client, Keys(), [second.id], result_ttl_s=60)
    assert cancelled.ended[second.id].status == "cancelled"
    upkeep = CallbackUpkeep(played.engine, played.pipeline.callbacks)
    assert (await upkeep.round(), await upkeep.round()) == (1, 0)
    with pytest.raises(Exception, match="cancelled"):
        body.get(timeout=10)
    assert str(app.AsyncResult(second.id).state) == "REVOKED"


async def test_a_nested_group_keeps_its_form_for_the_body(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    inner = chain(ask(app, "first"), group(ask(app, None), ask(app, None)))
    body = chord([inner, ask(app, "alone")])(mine(app, "merge"))
    for _ in range(4):
        for job in take_jobs(client):
            await played.result(job)
    [merge] = sent_to(client)
    assert merge.id == body.id
    [(nested, alone)] = merge.args
    assert [one["status"] for one in (*nested, alone)] == ["succeeded"] * 3


async def test_a_job_asks_about_the_result_of_the_task_before(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    system = [{"role": "system", "content": "Shorten."}]
    chain(ask(app), ask(app, None, messages=system)).apply_async()
    [first] = take_jobs(client)
    await played.result(first)
    [second] = take_jobs(client)
    assert second.parent_id == first.id
    assert second.request.messages == [*system, {"role": "user", "content": "four"}]


async def test_a_job_that_died_before_its_callbacks_sends_the_same_ones_again(
    on_each: PlayedPipeline, client: Redis, app: Celery
) -> None:
    ask(app).apply_async(link=[mine(app, "one"), group(mine(app, "two"), mine(app, "three"))])
    [job] = take_jobs(client)
    done = on_each.pipeline.callbacks.sent
    on_each.pipeline.callbacks.sent = _dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await on_each.run(job)
    on_each.pipeline.callbacks.sent = done  # type: ignore[method-assign]
    first = sent_to(client)
    client.delete("mine")
    assert isinstance(await on_each.run(job), AlreadyTaken)
    assert [(one.id, one.args) for one in sent_to(client)] == [(one.id, one.args) for one in first]
    client.delete("mine")
    await on_each.run(job)
    assert sent_to(client) == []  # nothing is left to be sent
    assert len(on_each.provider.asked) == 1


class Killed(BaseException):
    """The worker has died."""


def _dies(*_: Any, **__: Any) -> Any:
    raise Killed


async def test_maintenance_sends_what_no_message_recalls(
    on_each: PlayedPipeline, client: Redis, app: Celery
) -> None:
    ask(app).apply_async(link=mine(app, "after"))
    [job] = take_jobs(client)
    send = on_each.pipeline.callbacks.send
    on_each.pipeline.callbacks.send = _dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await on_each.run(job)
    on_each.pipeline.callbacks.send = send  # type: ignore[method-assign]
    late = on_each.row(job).finished_at_ms + 61_000
    upkeep = CallbackUpkeep(on_each.engine, on_each.pipeline.callbacks, lambda: late - 2000)
    assert (await upkeep.round(), sent_to(client)) == (0, [])
    upkeep = CallbackUpkeep(on_each.engine, on_each.pipeline.callbacks, lambda: late)
    assert (await upkeep.round(), await upkeep.round()) == (1, 0)
    assert [one.task for one in sent_to(client)] == ["mine.after"]


async def test_the_body_of_a_chord_is_sent_after_the_worker_that_sent_it_died(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    body = chord([ask(app)])(mine(app, "merge"))
    [job] = take_jobs(client)
    send = played.pipeline.callbacks.send
    played.pipeline.callbacks.send = _dies  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await played.run(job)
    played.pipeline.callbacks.send = send  # type: ignore[method-assign]
    # It died with all parts counted and the body claimed; its claim ends by itself.
    backend: Any = app.backend
    client.set(backend.get_key_for_group(job.group, ".c"), "of the dead", px=2500)
    assert isinstance(await played.run(job), AlreadyTaken)
    assert [one.id for one in sent_to(client)] == [body.id]


async def test_an_ignored_result_is_not_stored_and_its_callbacks_run(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    sent = ask(app).apply_async(link=mine(app, "after"), ignore_result=True)
    alone = ask(app, "other").apply_async(ignore_result=True)
    for job in take_jobs(client):
        assert (await played.result(job)).status == "succeeded"
    assert [one.task for one in sent_to(client)] == ["mine.after"]
    assert {app.AsyncResult(one.id).state for one in (sent, alone)} == {"PENDING"}


async def test_a_callback_that_redis_refuses_makes_the_job_a_failure_and_a_dead_letter(
    played: PlayedPipeline, client: Redis, app: Celery
) -> None:
    sent = ask(app).apply_async(link=mine(app, "after"))
    client.set("mine", "no list")
    [job] = take_jobs(client)
    outcome = await played.run(job)
    assert isinstance(outcome, Ended)
    assert outcome.result.status == "succeeded"  # it was paid, and the record has its answer
    assert (outcome.gave_up or "").startswith(f"{CANNOT_SEND}: Redis refused a callback")
    with pytest.raises(JobFailed, match=CANNOT_SEND):
        sent.get(timeout=10)
    assert unsent(played) == 0


@pytest.mark.parametrize(
    ("canvas", "reason"),
    [
        ({"callbacks": ["after"]}, "embed.callbacks.0 is not a signature"),
        ({"chain": [{"task": ""}]}, "embed.chain.0 is not a signature"),
        ({"callbacks": [{"task": "t", "options": 1}]}, "options or kwargs that are no objects"),
        ({"errbacks": [{"task": "t", "options": {"serializer": "pickle"}}]}, "ever pickled"),
        ({"chord": {"task": "t", "options": {"serializer": "odd"}}}, "not installed here"),
        ({"callbacks": [{"task": "g", "subtask_type": "group"}]}, "not a list of signatures"),
        ({"chain": [{"task": "c", "subtask_type": "chord", "kwargs": {"header": []}}]}, "body"),
    ],
)
def test_a_canvas_that_cannot_be_sent_is_refused(canvas: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableMessage, match=reason):
        prepared(canvas, "job")
