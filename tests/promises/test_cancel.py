"""Cancelling reaches the provider: the call is closed, not left to run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer


@pytest.mark.parametrize("model", ["gpt-4o-mini", "claude-haiku-4-5"])
def test_cancelling_a_running_job_closes_the_upstream_call(
    model: str,
    valkey: ValkeyServer,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "60000")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        job_id = headgate(["submit", "a long story", "--model", model], env).out.strip()
        wait_until(lambda: simulator.stats()["open_now"] == 1, 20, "the call to be under way")
        cancelled = headgate(["cancel", job_id, "--json"], env)
        assert cancelled.code == 0, cancelled.err
        assert cancelled.document["status"] == "cancelled"
        wait_until(lambda: simulator.stats()["open_now"] == 0, 5, "the call to be closed")
        assert simulator.stats()["cancelled"] == 1
        assert simulator.stats()["answered"] == 0

        result = headgate(["result", job_id, "--json"], env)
        assert result.code == 1
        assert result.document["status"] == "cancelled"
        assert result.document["error"]["code"] == "cancelled"
        books = installation.read_books(installation.database_url(env))
        assert books.jobs == {"cancelled": 1}
        assert books.attempts == {"unknown": 1}
        assert worker.stop(20) == 0
