"""A Celery app of a user with its stock prefork worker, beside a worker of Headgate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chord, group
from celery.exceptions import ChordError
from celery.result import GroupResult, ResultSet
from pytest_celery import CeleryTestSetup, CeleryWorkerCluster

from headgate import JobFailed
from tests.support import installation
from tests.support.canvas import ask, user_app
from tests.support.celery_pair import OURS, STOCK, pair, workflow_program
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import Simulator, ValkeyServer

DOCUMENTS = 20
WITHIN_S = 180
"""How long a busy machine may take; an idle one takes seconds."""


@pytest.fixture
def simulator_here(simulator_factory: Callable[..., Simulator]) -> Simulator:
    return simulator_factory("--latency-ms", "300")


@pytest.fixture
def env(celery_valkey: ValkeyServer, simulator_here: Simulator, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_REDIS_URL": celery_valkey.url,
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_SIMULATOR_URL": simulator_here.url,
        "HEADGATE_LEASE_S": "2",
        "HEADGATE_SWEEP_S": "1",
    }


@pytest.fixture
def celery_worker_cluster(env: dict[str, str], tmp_path: Path) -> Iterator[CeleryWorkerCluster]:
    with pair(env, tmp_path) as cluster:
        yield cluster


@pytest.fixture
def program(celery_valkey: ValkeyServer, tmp_path: Path) -> Iterator[ChildProcess]:
    """The workflow of the docs over so many texts, not started yet."""
    for n in range(DOCUMENTS):
        (tmp_path / f"text-{n}.txt").write_text(f"This is text {n}.")
    child = workflow_program(tmp_path, celery_valkey.url)
    with installation.ended_afterwards(child):
        yield child


@pytest.fixture
def app(celery_valkey: ValkeyServer) -> Iterator[Celery]:
    with user_app(celery_valkey.url) as app:
        yield app


def merged(program: ChildProcess) -> list[str]:
    """Wait for the end of the workflow; return the lines that it has printed."""
    assert installation.exit_code(program, WITHIN_S) == 0, program.log()
    return program.log().splitlines()


def ended(env: dict[str, str]) -> int:
    return installation.read_books(installation.database_url(env)).audit_lines


def job(app: Celery, prompt: str, **fields: Any) -> Any:
    return ask(app, prompt, model="gpt-4o-mini", **fields)


@pytest.mark.slow
def test_a_workflow_fetches_asks_twenty_times_and_merges(
    celery_setup: CeleryTestSetup,
    program: ChildProcess,
    simulator_here: Simulator,
    env: dict[str, str],
) -> None:
    assert celery_setup.ready(control=True, docker=True)
    title, *summaries = merged(program.start())
    assert title == "Summaries"
    assert len([line for line in summaries if line]) >= DOCUMENTS
    celery_setup.worker_cluster[STOCK].assert_log_exists("workflow.merge")
    celery_setup.worker_cluster[OURS].assert_log_does_not_exist("workflow.fetch")
    assert simulator_here.stats()["requests"] == DOCUMENTS
    books = installation.read_books(installation.database_url(env))
    assert (books.jobs, books.attempts) == ({"succeeded": DOCUMENTS}, {"answered": DOCUMENTS})


@pytest.mark.slow
def test_a_workflow_outlives_kills_and_restarts_of_both_workers(
    celery_setup: CeleryTestSetup,
    program: ChildProcess,
    simulator_here: Simulator,
    env: dict[str, str],
) -> None:
    ours, stock = celery_setup.worker_cluster[OURS], celery_setup.worker_cluster[STOCK]
    program.start()
    wait_until(lambda: simulator_here.stats()["requests"] >= 5, 60, "some answers")
    ours.kill()
    ours.restart()
    wait_until(lambda: ended(env) >= DOCUMENTS // 2, 60, "half of the jobs to end")
    ours.kill()
    stock.restart()
    ours.restart()
    assert merged(program)[0] == "Summaries"
    books = installation.read_books(installation.database_url(env))
    assert (books.jobs, books.audit_lines) == ({"succeeded": DOCUMENTS}, DOCUMENTS)


@pytest.mark.slow
def test_links_errbacks_chains_and_chords_do_what_celery_does(
    celery_setup: CeleryTestSetup, app: Celery
) -> None:
    assert celery_setup.ready(control=True)
    content_of, told = app.signature("workflow.content_of"), "workflow.report_failure"
    bad = job(app, "[[fault:400]] no", fallback=False)

    # A link gets the result, and is a child of the job.
    linked = job(app, "one").apply_async(link=content_of)
    content = linked.get(timeout=WITHIN_S)["content"]
    [child] = linked.children
    assert child.get(timeout=WITHIN_S) == content

    # An errback gets the id, and reads the failure.
    failed = bad.apply_async(link_error=app.signature(told).set(task_id="told"))
    with pytest.raises(JobFailed) as raised:
        failed.get(timeout=WITHIN_S)
    assert (raised.value.code, raised.value.job_id) == ("invalid_request", failed.id)
    assert app.AsyncResult("told").get(timeout=WITHIN_S).startswith(f"{failed.id}: ")

    # A chain of two jobs and a task; a failure ends the rest of the chain.
    whole = (job(app, "a text") | ask(app, None, model="gpt-4o-mini") | content_of).apply_async()
    assert whole.get(timeout=WITHIN_S)
    broken = (bad | ask(app, None, model="gpt-4o-mini") | content_of).apply_async()
    with pytest.raises(JobFailed, match="400"):
        broken.get(timeout=WITHIN_S)

    # A chord whose part fails is an error of its body, whose errback is called.
    body = app.signature("workflow.merge", args=["never"])
    body.link_error(app.signature(told).set(task_id="told of the chord"))
    failing = chord([job(app, "x"), bad])(body)
    error = failing.get(timeout=WITHIN_S, propagate=False)
    assert isinstance(error, ChordError)
    assert "400" in str(error)
    assert app.AsyncResult("told of the chord").get(timeout=WITHIN_S).startswith(failing.id)


@pytest.mark.slow
def test_groups_and_result_sets_join_as_in_celery(
    celery_setup: CeleryTestSetup, app: Celery
) -> None:
    assert celery_setup.ready(control=True)
    parts: Any = group(job(app, f"number {n}") for n in range(3)).apply_async()
    parts.save()
    answers = parts.get(timeout=WITHIN_S)
    assert [one["status"] for one in answers] == ["succeeded"] * 3
    again: Any = GroupResult.restore(parts.id, app=app)
    assert again.join(timeout=WITHIN_S) == answers
    assert again.join_native(timeout=WITHIN_S) == answers
    assert ResultSet(parts.results, app=app).join(timeout=WITHIN_S) == answers
    assert (again.successful(), again.completed_count()) == (True, 3)
    again.delete()
    assert GroupResult.restore(parts.id, app=app) is None
    first = parts.results[0]
    first.forget()
    assert app.AsyncResult(first.id).state == "PENDING"
