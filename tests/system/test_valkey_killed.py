"""kill -9 of the Valkey in the middle of a batch: it comes back with its own files."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from shared import embedded
from tests.child import wait_until
from tests.servers import Simulator, ValkeyServer
from tests.system import rig

JOBS = 2_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["external", "embedded"])
def test_a_killed_valkey_restarted_from_its_own_files_loses_nothing(
    kind: str,
    valkey_factory: Callable[..., ValkeyServer],
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "150", "--latency-sigma", "0.2")
    home = tmp_path / "home"
    env = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "100",
        "HEADGATE_LEASE_S": "3",
    }
    if kind == "external":
        server = valkey_factory(appendonly=True)
        env["HEADGATE_REDIS_URL"] = server.url

    def kill_and_return() -> None:
        if kind == "external":
            server.kill()
            server.start()
            return
        before = embedded.processes(home)
        assert before is not None
        os.kill(before.server_pid, signal.SIGKILL)

        def is_back() -> bool:
            now = embedded.processes(home)
            return now is not None and now.server_pid != before.server_pid

        wait_until(is_back, 30, "the keeper to start the server again")

    source, out = rig.write_prompts(tmp_path / "in.jsonl", JOBS), tmp_path / "out.jsonl"
    url = rig.database_url(env)
    batch = rig.command(["batch", "run", source, "-o", out], env, tmp_path / "batch.log")
    worker = rig.worker_process(env, tmp_path)
    with rig.ended_afterwards(batch, worker):
        worker.start()
        batch.start()
        for wanted in (400, 1_200):
            wait_until(lambda: rig.count_ended(url) >= wanted, 60, "jobs to end")  # noqa: B023
            kill_and_return()
        assert rig.exit_code(batch, 90) == 0, batch.log_end()
        assert worker.running, worker.log_end()
        assert worker.stop(30) == 0
    rig.each_is_answered_once(out, JOBS)
    rig.the_books_agree(url, simulator, JOBS, unknown=0)
    if kind == "embedded":
        wait_until(lambda: embedded.processes(home) is None, 30, "the keeper to end")
