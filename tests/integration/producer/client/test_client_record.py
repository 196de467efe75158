"""Results that are no longer in Redis: the library and our Celery backend read the record."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, states
from celery.backends.redis import SentinelBackend
from celery.result import AsyncResult, GroupResult
from kombu.utils.imports import symbol_by_name

from headgate import Client, JobFailed
from headgate.shared.job.result import ErrorReport
from headgate.workers.celery.config import RESULT_BACKEND
from headgate.workers.celery.result_backend import open_backend
from tests import ROOT
from tests.support.child import wait_until
from tests.support.played import PlayedWorker, settings_for
from tests.support.servers import ValkeyServer

PREFIX = "acme_"


@pytest.fixture
def client(
    valkey: ValkeyServer, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Client]:
    monkeypatch.setenv("HEADGATE_DATABASE_URL", database_url)
    settings = settings_for(valkey.url, database_url, tmp_path, key_prefix=PREFIX)
    with Client(settings) as opened:
        yield opened


@pytest.fixture
def worker(client: Client) -> PlayedWorker:
    return PlayedWorker(client.open())


@pytest.fixture
def app(client: Client, valkey: ValkeyServer) -> Iterator[Celery]:
    app = app_with(f"{RESULT_BACKEND}+{valkey.url}", valkey)
    yield app
    backend: Any = app.backend
    backend.record.close()
    app.close()


def app_with(backend: str, valkey: ValkeyServer) -> Celery:
    app = Celery(broker=valkey.url, backend=backend, set_as_current=False)
    app.conf.result_backend_transport_options = {"global_keyprefix": PREFIX}
    return app


def evict(client: Client, *ids: str) -> None:
    at = client.open()
    assert at.redis.delete(*map(at.keys.result, ids)) == len(ids)


def test_an_evicted_result_is_read_from_the_record(
    client: Client, worker: PlayedWorker, app: Celery, valkey: ValkeyServer
) -> None:
    job = client.submit("Hello")
    answer: AsyncResult[Any] = AsyncResult(job.id, app=app)
    assert answer.state == states.PENDING
    result = worker.end(job.id)
    evict(client, job.id)
    assert str(answer.state) == states.SUCCESS
    assert answer.get(timeout=30) == result.as_json()
    assert client.result(job.id) == result
    # Celery's own backend reads Redis alone, as the docs say.
    stock = app_with(valkey.url, valkey)
    assert AsyncResult(job.id, app=stock).state == states.PENDING
    stock.close()


def test_evicted_ends_of_other_kinds_are_what_they_were(
    client: Client, worker: PlayedWorker, app: Celery
) -> None:
    failed, cancelled, unknown = client.submit("Hello"), client.submit("Hi"), "no-such-job"
    report = ErrorReport("overloaded", "all models are busy", True)
    worker.end(failed.id, status="failed", content=None, error=report)
    cancelled.cancel()
    evict(client, failed.id, cancelled.id)
    with pytest.raises(JobFailed) as caught:
        AsyncResult(failed.id, app=app).get(timeout=30)
    assert caught.value.args[:2] == ("all models are busy", "overloaded")
    assert str(AsyncResult(cancelled.id, app=app).state) == states.REVOKED
    assert AsyncResult(unknown, app=app).state == states.PENDING


def test_a_group_gets_all_results_though_some_are_evicted(
    client: Client, worker: PlayedWorker, app: Celery
) -> None:
    ids = client.submit_many(f"Hello {n}" for n in range(6))
    results = [worker.end(job_id).as_json() for job_id in ids]
    evict(client, *ids[:4])
    group: Any = GroupResult("g", [AsyncResult(job_id, app=app) for job_id in ids], app=app)
    assert group.get(timeout=60) == results


def test_who_waits_and_loses_redis_reads_the_record(
    client: Client, worker: PlayedWorker, app: Celery
) -> None:
    at, job = client.open(), client.submit("Hello")
    answer: AsyncResult[Any] = AsyncResult(job.id, app=app)
    with ThreadPoolExecutor() as pool:
        got = pool.submit(answer.get, timeout=60)
        channel = at.keys.result(job.id)
        wait_until(lambda: at.redis.pubsub_numsub(channel)[0][1] == 1, 30, "Celery to subscribe")
        result = worker.end(job.id, publish=False)
        at.redis.client_kill_filter(_type="pubsub")
        assert got.result(60) == result.as_json()


def test_celery_finds_the_backend_by_its_short_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    path = project["entry-points"]["celery.result_backends"]["headgate"]
    assert path == RESULT_BACKEND
    assert symbol_by_name(path) is open_backend


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h/0", "socket:///s", "sentinel://h/0"])
def test_there_is_a_backend_for_every_form_of_redis(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADGATE_HOME", str(tmp_path))
    app = Celery(set_as_current=False)
    if url.startswith("rediss"):
        url += "?ssl_cert_reqs=CERT_REQUIRED"
    for prefix in ("", "redis+"):
        backend = open_backend(app, f"{prefix}{url}")
        assert isinstance(backend, SentinelBackend) is url.startswith("sentinel")
        assert backend.record.read(["x"]) == {}  # type: ignore[attr-defined]
