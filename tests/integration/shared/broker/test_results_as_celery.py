"""What `AsyncResult` reads of a job is what the installed Celery's own backend would have stored.

For each end of a job, Celery's backend stores a task that ended so, and our script stores the job.
Both are compared byte for byte of their fields, and then by what a program reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.task import Context
from celery.exceptions import TaskRevokedError

from headgate import JobFailed
from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.job.result import ErrorReport, FailedAttempt, Result, Usage
from tests.support.canvas import user_app
from tests.support.servers import ValkeyServer

OURS, THEIRS, CHILD = "job-of-ours", "task-of-celery", "child"
DONE = "2026-11-30T09:30:00.123Z"

ATTEMPT = FailedAttempt("gpt-4o-mini", "overloaded", "HTTP 529: \N{SNOWMAN}", 529, 120)
FAILED = ErrorReport("overloaded", "all models are busy", True, [ATTEMPT])
LATE = ErrorReport("deadline", "the deadline passed while it waited", False)
STOPPED = ErrorReport("cancelled", "cancelled on request", False)


def end(status: Any, **fields: Any) -> Result:
    return Result(id=OURS, status=status, model="gpt-4o-mini", finished_at=DONE, **fields)


ENDS = {
    "succeeded": end("succeeded", content="four \N{SNOWMAN}", usage=Usage(1, 0, 0, 2, 0)),
    "embedded": end("succeeded", embeddings=[[0.5, -1.0]], metadata={"n": [1, None, True]}),
    "failed": end("failed", error=FAILED, attempts=1),
    "past its deadline": end("expired", error=LATE),
    "cancelled": end("cancelled", error=STOPPED),
}


@pytest.fixture
def app(valkey: ValkeyServer) -> Iterator[Celery]:
    with user_app(valkey.url) as app:
        yield app


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def store_as_celery(app: Celery, result: Result, **request: Any) -> None:
    """Store a task that ended like this job, with Celery's own backend."""
    children = request.pop("children", None)
    call: Any = Context(id=THEIRS, **request)
    if children is not None:
        call._children = children
    backend: Any = app.backend
    if result.status == "succeeded":
        backend.mark_as_done(THEIRS, result.as_json(), call)
    elif result.status == "cancelled":
        backend.mark_as_revoked(THEIRS, "cancelled", call)
    else:
        error = result.as_json()["error"]
        raised = JobFailed(error["message"], error["code"], OURS, result.status, error)
        backend.mark_as_failure(THEIRS, raised, request=call)


def store_ours(client: redis.Redis, result: Result, **others: Any) -> None:
    record = celery_record(result, **others)
    script.run(client, jobs.publish(Keys(), job_id=OURS, record=record, ttl_s=60))


def stored(client: redis.Redis, task_id: str) -> dict[str, Any]:
    found: Any = client.get(Keys().result(task_id))
    fields: dict[str, Any] = json.loads(found)
    return fields


@pytest.mark.parametrize("result", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("part_of", [{}, {"group": "a group", "parent_id": "a parent"}])
def test_the_record_has_the_fields_of_celerys_backend_and_their_values(
    app: Celery, client: redis.Redis, result: Result, part_of: dict[str, str]
) -> None:
    store_as_celery(app, result, **part_of)
    store_ours(client, result, **part_of)
    ours, theirs = stored(client, OURS), stored(client, THEIRS)
    assert list(ours) == list(theirs)
    assert (ours.pop("task_id"), theirs.pop("task_id")) == (OURS, THEIRS)
    assert (
        datetime.fromisoformat(ours.pop("date_done")).utcoffset()
        == datetime.fromisoformat(theirs.pop("date_done")).utcoffset()
    )
    assert ours == theirs


READ: dict[str, Callable[[Any], Any]] = {
    "state": lambda found: found.state,
    "status": lambda found: found.status,
    "traceback": lambda found: found.traceback,
    "children": lambda found: [child.id for child in found.children or ()],
    "ready": lambda found: found.ready(),
    "successful": lambda found: found.successful(),
    "failed": lambda found: found.failed(),
    "parent": lambda found: found.parent,
    "name": lambda found: found.name,
    "args": lambda found: found.args,
    "kwargs": lambda found: found.kwargs,
    "worker": lambda found: found.worker,
    "retries": lambda found: found.retries,
    "queue": lambda found: found.queue,
    "kind of date_done": lambda found: (type(found.date_done), found.date_done.tzinfo),
    "result": lambda found: plain(found.result),
    "info": lambda found: plain(found.info),
    "get without propagation": lambda found: plain(found.get(timeout=5, propagate=False)),
    "forgotten": lambda found: (found.forget(), found.backend.get_state(found.id)),
}


def plain(value: Any) -> Any:
    """An exception as its class and arguments; anything else as it is."""
    return (type(value), value.args) if isinstance(value, BaseException) else value


@pytest.mark.parametrize("result", ENDS.values(), ids=ENDS)
def test_a_program_reads_the_same_of_a_job_and_of_a_task(
    app: Celery, client: redis.Redis, result: Result
) -> None:
    child: Any = app.AsyncResult(CHILD)
    store_as_celery(app, result, children=[child])
    store_ours(client, result, children=[child.as_tuple()])
    ours, theirs = (
        {what: read(app.AsyncResult(task_id)) for what, read in READ.items()}
        for task_id in (OURS, THEIRS)
    )
    assert ours == theirs
    assert ours["children"] == [CHILD]
    assert ours["forgotten"] == (None, "PENDING")


def test_date_done_is_when_the_job_ended(app: Celery, client: redis.Redis) -> None:
    store_ours(client, ENDS["succeeded"])
    assert app.AsyncResult(OURS).date_done == datetime(2026, 11, 30, 9, 30, 0, 123_000, tzinfo=UTC)


@pytest.mark.parametrize("name", ["failed", "past its deadline"])
def test_a_failure_is_raised_as_our_class_where_it_is_known(
    app: Celery, client: redis.Redis, name: str
) -> None:
    store_ours(client, ENDS[name])
    with pytest.raises(JobFailed) as raised:
        app.AsyncResult(OURS).get(timeout=5)
    error = ENDS[name].as_json()["error"]
    assert raised.value.args == (error["message"], error["code"], OURS, ENDS[name].status, error)
    assert type(raised.value) is JobFailed
    assert (stored(client, OURS)["result"]["exc_module"]) == "headgate"


def test_a_cancelled_job_raises_what_a_revoked_task_raises(
    app: Celery, client: redis.Redis
) -> None:
    store_ours(client, ENDS["cancelled"])
    with pytest.raises(TaskRevokedError, match="cancelled"):
        app.AsyncResult(OURS).get(timeout=5)
