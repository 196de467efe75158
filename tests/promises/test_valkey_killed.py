"""kill -9 of the Valkey in the middle of a batch: it comes back with its own files.

Behind sentinels another one takes its place, and it comes back as a replica of that.
"""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from headgate.shared.servers import embedded
from tests.support import installation, redis_forms
from tests.support.child import wait_until
from tests.support.servers import Simulator


@pytest.mark.slow
@pytest.mark.parametrize("form", ["embedded", *redis_forms.FORMS])
def test_a_killed_valkey_restarted_from_its_own_files_loses_nothing(
    form: str, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    jobs = redis_forms.jobs_of(form)
    simulator = simulator_factory("--latency-ms", "150", "--latency-sigma", "0.2")
    home = tmp_path / "home"
    env = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "100",
        "HEADGATE_LEASE_S": "3",
        "HEADGATE_SWEEP_S": "1",
    }

    def kill_embedded() -> None:
        before = embedded.processes(home)
        assert before is not None
        os.kill(before.server_pid, signal.SIGKILL)

        def is_back() -> bool:
            now = embedded.processes(home)
            return now is not None and now.server_pid != before.server_pid

        wait_until(is_back, 30, "the keeper to start the server again")

    source, out = installation.write_prompts(tmp_path / "in.jsonl", jobs), tmp_path / "out.jsonl"
    url = installation.database_url(env)
    batch = installation.command(["batch", "run", source, "-o", out], env, tmp_path / "batch.log")
    worker = installation.worker_process(env, tmp_path)
    with ExitStack() as stack:
        if form != "embedded":
            server = stack.enter_context(redis_forms.opened(form))
            batch.env |= server.env
            worker.env |= server.env
            kill_and_return = server.kill_and_return
        else:
            kill_and_return = kill_embedded
        stack.enter_context(installation.ended_afterwards(batch, worker))
        worker.start()
        batch.start()
        for wanted in (jobs // 5, jobs * 3 // 5):
            wait_until(lambda: installation.count_ended(url) >= wanted, 60, "jobs to end")  # noqa: B023
            kill_and_return()
        assert installation.exit_code(batch, 90) == 0, batch.log_end()
        assert worker.running, worker.log_end()
        assert worker.stop(30) == 0
    installation.each_is_answered_once(out, jobs)
    installation.the_books_agree(url, simulator, jobs, unknown=0)
    if form == "embedded":
        wait_until(lambda: embedded.processes(home) is None, 30, "the keeper to end")
