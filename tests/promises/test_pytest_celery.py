"""The worker as pytest-celery drives it: its own set-up, its own kills, our app."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pytest_celery import CeleryTestSetup

from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.servers import Simulator, ValkeyServer

QUEUE = "headgate.standard.fast"


@pytest.fixture
def slow_simulator(simulator_factory: Callable[..., Simulator]) -> Simulator:
    return simulator_factory("--latency-ms", "4000")


@pytest.fixture
def celery_worker_env(
    celery_valkey: ValkeyServer, slow_simulator: Simulator, tmp_path: Path
) -> Mapping[str, str]:
    return {
        "HEADGATE_REDIS_URL": celery_valkey.url,
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_SIMULATOR_URL": slow_simulator.url,
        "HEADGATE_LEASE_S": "2",
    }


def test_a_job_of_a_killed_worker_is_done_by_its_next_start(
    celery_setup: CeleryTestSetup,
    celery_worker_env: Mapping[str, str],
    slow_simulator: Simulator,
) -> None:
    assert celery_setup.ready(control=True, docker=True)
    worker = celery_setup.worker
    request = {"prompt": "Hello", "model": "gpt-4o-mini"}
    answer = celery_setup.app.send_task("headgate.run", args=[request], queue=QUEUE)
    wait_until(lambda: slow_simulator.stats()["open_now"] == 1, 20, "the call to be under way")
    worker.kill()
    assert worker.container.status == "exited"
    assert not answer.ready()
    worker.restart()
    result = answer.get(timeout=30 * BUSY)
    assert (result["status"], result["attempts"]) == ("succeeded", 2)
    worker.assert_log_exists(f"job {answer.id} succeeded")
    books = installation.read_books(installation.database_url(celery_worker_env))
    assert books.jobs == {"succeeded": 1}
    assert books.attempts == {"answered": 1, "unknown": 1}
