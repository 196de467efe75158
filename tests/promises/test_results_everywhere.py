"""One result, told the same by Celery, by our client and by the command line."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, group, states
from celery.result import AsyncResult, GroupResult

from headgate import Client, JobFailed
from headgate.producer.errors import UnknownJob
from headgate.shared.broker.jobs import evict_results
from headgate.shared.broker.script import run
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import ChildProcess, wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

WAITS = """
import json, sys
from celery import Celery
url, job_id = sys.argv[1:]
answer = Celery(broker=url, backend=url).AsyncResult(job_id)
print(answer.state, flush=True)
print(json.dumps(answer.get(timeout=90)), flush=True)
"""


@pytest.fixture
def env(valkey: ValkeyServer, simulator: Simulator, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }


@pytest.fixture
def worker(env: dict[str, str], tmp_path: Path) -> Iterator[WorkerProcess]:
    """A worker that can be started."""
    child = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(child):
        yield child


@pytest.fixture
def client(env: dict[str, str]) -> Iterator[Client]:
    settings = Settings(home=Path(env["HEADGATE_HOME"]), redis_url=env["HEADGATE_REDIS_URL"])
    with Client(settings) as opened:
        yield opened


@pytest.fixture
def celery(valkey: ValkeyServer) -> Iterator[Celery]:
    """A Celery app that knows nothing but the URL."""
    app = Celery("stranger", broker=valkey.url, backend=valkey.url, set_as_current=False)
    yield app
    app.close()


def told_by_the_command(env: dict[str, str], job_id: str) -> tuple[int, Any]:
    """Exit code and document of `headgate result --json`."""
    ended = headgate(["result", job_id, "--json"], env)
    return ended.code, ended.document


def test_celery_client_and_command_line_give_the_same_result(
    env: dict[str, str],
    worker: WorkerProcess,
    client: Client,
    celery: Celery,
    valkey: ValkeyServer,
    tmp_path: Path,
) -> None:
    waited = client.submit("Hello", model="gpt-4o-mini", metadata={"mine": [1, "é"]})
    failed = client.submit("[[fault:400]] Hello", model="gpt-4o-mini", fallback=False)
    cancelled = client.submit("Never asked", model="gpt-4o-mini")
    assert client.cancel(cancelled.id).status == "cancelled"
    assert AsyncResult(waited.id, app=celery).state == states.PENDING
    assert told_by_the_command(env, waited.id)[1]["status"] == "queued"

    waits = ChildProcess(
        [sys.executable, "-c", WAITS, valkey.url, waited.id], log_path=tmp_path / "waits.log"
    )
    with installation.ended_afterwards(waits):
        waits.start()
        channel = client.open().keys.result(waited.id)
        count: Callable[[], Any] = lambda: client.open().redis.pubsub_numsub(channel)[0][1]  # noqa: E731
        wait_until(lambda: count() == 1, 20, "the other program to wait")
        worker.start()
        assert installation.exit_code(waits, 30) == 0, waits.log()
    state, document = waits.log().splitlines()
    assert state == states.PENDING

    ours = waited.result(timeout_s=20)
    assert ours.status == "succeeded"
    assert ours.metadata == {"mine": [1, "é"]}
    assert ours.attempts == 1
    assert json.loads(document) == ours.as_json()
    answer: AsyncResult[Any] = AsyncResult(waited.id, app=celery)
    assert (answer.state, answer.result) == (states.SUCCESS, ours.as_json())
    assert told_by_the_command(env, waited.id) == (0, ours.as_json())
    assert client.result(waited.id).as_json() == ours.as_json()

    with pytest.raises(JobFailed) as raised:
        failed.result(timeout_s=20)
    with pytest.raises(JobFailed) as by_celery:
        AsyncResult(failed.id, app=celery).get(timeout=20)
    assert by_celery.value.args == raised.value.args
    assert (raised.value.code, raised.value.status) == ("invalid_request", "failed")
    assert AsyncResult(failed.id, app=celery).state == states.FAILURE
    code, document = told_by_the_command(env, failed.id)
    assert (code, document) == (1, client.result(failed.id).as_json())
    assert document["error"]["attempts"][0]["http_status"] == 400

    assert str(AsyncResult(cancelled.id, app=celery).state) == states.REVOKED
    code, document = told_by_the_command(env, cancelled.id)
    assert (code, document["status"]) == (1, "cancelled")
    assert document == client.result(cancelled.id).as_json()


def test_an_unknown_id_is_not_taken_for_a_queued_job(env: dict[str, str], client: Client) -> None:
    queued = client.submit("Hello")
    assert client.result(queued.id).status == "queued"
    with pytest.raises(UnknownJob):
        client.result("0192aaaa-0000-7000-8000-000000000000")
    unknown = headgate(["result", "0192aaaa-0000-7000-8000-000000000000"], env)
    assert (unknown.code, unknown.out) == (2, "")
    assert "no job" in unknown.err
    assert headgate(["result", queued.id], env).code == 1


def test_what_a_stock_celery_app_sends_is_run_and_recorded(
    env: dict[str, str], worker: WorkerProcess, client: Client, celery: Celery
) -> None:
    worker.start()
    request = {"prompt": "Hello", "model": "gpt-4o-mini", "user": "u1"}
    sent = celery.send_task("headgate.run", args=[request], queue="headgate.standard.fast")
    by_name = celery.send_task("headgate.run", kwargs=request, queue="headgate.bulk.fast")
    wrong = celery.send_task(
        "headgate.run", args=[{"prompt": "x", "modle": "y"}], queue="headgate.standard.fast"
    )
    assert sent.get(timeout=20)["status"] == "succeeded"
    assert by_name.get(timeout=20)["status"] == "succeeded"
    assert client.result(sent.id).as_json() == sent.result
    assert {job.id for job in client.jobs(status="succeeded")} == {sent.id, by_name.id}
    with pytest.raises(JobFailed, match="modle"):
        wrong.get(timeout=20)
    assert told_by_the_command(env, wrong.id)[0] == 1
    books = installation.read_books(installation.database_url(env))
    assert books.jobs == {"succeeded": 2, "failed": 1}
    assert books.audit_lines == 3


def test_parts_of_a_saved_group_stay_in_redis_while_others_are_evicted(
    worker: WorkerProcess, client: Client, celery: Celery
) -> None:
    worker.start()
    at = client.open()

    def ask(n: int) -> Any:
        request = {"prompt": f"Hello {n}", "model": "gpt-4o-mini"}
        return celery.signature("headgate.run", args=[request], queue="headgate.standard.fast")

    saved: Any = group(ask(n) for n in range(3)).apply_async()
    saved.save()
    answers = saved.get(timeout=60)
    alone = [client.submit(f"Alone {n}") for n in range(3)]
    assert {job.result(timeout_s=60).status for job in alone} == {"succeeded"}
    wait_until(lambda: at.redis.llen(at.keys.results()) == 6, 30, "all to be published")

    def evict() -> list[bool]:
        sizes: Any = at.redis.hget(at.keys.results_counts(), "bytes")
        run(at.redis, evict_results(at.keys, int(sizes) * 6 // 10))
        return [bool(at.redis.exists(at.keys.result(one.id))) for one in (*saved, *alone)]

    assert evict()[:3] == [True, True, True]
    again = GroupResult.restore(saved.id, app=celery)
    assert again.get(timeout=60) == answers
    saved.delete()
    evict()
    assert not all(evict()[:3])
