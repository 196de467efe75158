"""pytest-celery's nodes are local processes: no Docker, real kills."""

import sys
from collections.abc import Mapping, Sequence

import pytest
from pytest_celery import CeleryTestSetup

from tests.support.child import BUSY
from tests.support.servers import ValkeyServer


@pytest.fixture
def celery_worker_argv() -> Sequence[str]:
    argv = [sys.executable, "-m", "celery", "-A", "tests.support.celery_nodes_app", "worker"]
    return [*argv, "--loglevel=INFO", "--pool=threads", "--concurrency=2"]


@pytest.fixture
def celery_worker_env(celery_valkey: ValkeyServer) -> Mapping[str, str]:
    url = celery_valkey.url
    return {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}


def test_a_job_goes_through_a_worker_that_is_a_local_process(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True, docker=True)
    answer = celery_setup.app.send_task("celery_nodes_app.double", args=[21])
    assert answer.get(timeout=20 * BUSY) == 42
    celery_setup.worker.assert_log_exists("celery_nodes_app.double")


def test_a_killed_worker_is_replaced_and_works_on(celery_setup: CeleryTestSetup) -> None:
    worker = celery_setup.worker
    first = worker.container.child.pid
    worker.kill()
    assert worker.container.status == "exited"
    answer = celery_setup.app.send_task("celery_nodes_app.double", args=[4])
    worker.restart()
    assert worker.container.child.pid != first
    assert answer.get(timeout=20 * BUSY) == 8
