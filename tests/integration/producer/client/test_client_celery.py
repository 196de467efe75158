"""Any Celery app with our Redis as its backend sees the same ends, also when it already waits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate import Client
from headgate.shared.job.result import ErrorReport
from tests.support.child import ChildProcess, wait_until
from tests.support.played import PlayedWorker, settings_for
from tests.support.servers import ValkeyServer

PREFIX = "acme_"
ASK = """
import json, sys
from celery import Celery
from celery.result import AsyncResult
url, prefix, job_id, knows = sys.argv[1:]
if knows:
    import headgate.producer
app = Celery(broker=url, backend=url)
if prefix:
    app.conf.result_backend_transport_options = {"global_keyprefix": prefix}
answer = AsyncResult(job_id, app=app)
print(json.dumps({"before": answer.state}), flush=True)
try:
    value = answer.get(timeout=20)
    print(json.dumps({"state": answer.state, "value": value}), flush=True)
except Exception as error:
    printed = {"state": answer.state, "type": type(error).__name__, "args": error.args}
    printed |= {name: getattr(error, name, None) for name in ("code", "job_id", "status")}
    print(json.dumps(printed), flush=True)
"""

Ask = Callable[[str], ChildProcess]


@pytest.fixture(params=["", PREFIX], ids=["no prefix", "prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path, prefix: str) -> Iterator[Client]:
    with Client(settings_for(valkey.url, sqlite_url, tmp_path, key_prefix=prefix)) as opened:
        yield opened


@pytest.fixture
def worker(client: Client) -> PlayedWorker:
    return PlayedWorker(client.open())


@pytest.fixture
def ask(
    request: pytest.FixtureRequest, valkey: ValkeyServer, tmp_path: Path, prefix: str
) -> Iterator[Ask]:
    """Return a function that starts another program, which asks Celery for a job and waits."""
    started: list[ChildProcess] = []
    knows = "knows Headgate" if getattr(request, "param", False) else ""

    def start(job_id: str) -> ChildProcess:
        argv = [sys.executable, "-c", ASK, valkey.url, prefix, job_id, knows]
        child = ChildProcess(argv, log_path=tmp_path / f"celery-{len(started)}.log")
        started.append(child)
        return child.start()

    yield start
    for child in started:
        child.kill()


def lines(child: ChildProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in child.log().splitlines() if line.startswith("{")]


def printed(child: ChildProcess) -> dict[str, Any]:
    """Return what the program printed last."""
    wait_until(lambda: len(lines(child)) == 2, 20, f"an answer: {child.log()}")
    return lines(child)[1]


def waits(client: Client, child: ChildProcess, job_id: str) -> None:
    at = client.open()
    channel = at.keys.result(job_id)
    wait_until(lambda: at.redis.pubsub_numsub(channel)[0][1] == 1, 20, "Celery to subscribe")
    assert lines(child) == [{"before": "PENDING"}]


def test_celery_gets_the_result_while_it_waits(
    client: Client, worker: PlayedWorker, ask: Ask
) -> None:
    job = client.submit("Hello")
    child = ask(job.id)
    waits(client, child, job.id)
    result = worker.end(job.id)
    assert printed(child) == {"state": "SUCCESS", "value": result.as_json()}


def test_celery_gets_the_result_of_a_job_that_has_ended(
    client: Client, worker: PlayedWorker, ask: Ask
) -> None:
    job = client.submit("Hello")
    result = worker.end(job.id)
    child = ask(job.id)
    assert printed(child) == {"state": "SUCCESS", "value": result.as_json()}
    assert lines(child)[0] == {"before": "SUCCESS"}


@pytest.mark.parametrize("ask", [True, False], ids=["imports us", "knows nothing"], indirect=True)
@pytest.mark.parametrize("status", ["failed", "expired"])
def test_celery_raises_what_the_job_raises(
    client: Client, worker: PlayedWorker, ask: Ask, status: str
) -> None:
    job = client.submit("Hello")
    child = ask(job.id)
    waits(client, child, job.id)
    report = ErrorReport("overloaded", "all models are busy", True)
    worker.end(job.id, status=status, content=None, error=report)
    answer = printed(child)
    assert (answer["state"], answer["type"]) == ("FAILURE", "JobFailed")
    assert answer["args"][:4] == ["all models are busy", "overloaded", job.id, status]
    if answer["code"]:  # our own class, which Celery finds where the program has imported it
        fields = (answer["code"], answer["job_id"], answer["status"])
        assert fields == ("overloaded", job.id, status)


def test_celery_sees_a_cancelled_job_as_revoked(client: Client, ask: Ask) -> None:
    job = client.submit("Hello")
    child = ask(job.id)
    waits(client, child, job.id)
    job.cancel()
    answer = printed(child)
    assert (answer["state"], answer["type"]) == ("REVOKED", "TaskRevokedError")
