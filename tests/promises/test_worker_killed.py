"""kill -9 of a worker in the middle of a batch, on each form of a Redis URL."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import installation, redis_forms
from tests.support.child import wait_until
from tests.support.servers import Simulator

AT_ONCE = 100


@pytest.mark.slow
@pytest.mark.parametrize("form", redis_forms.FORMS)
def test_a_killed_worker_loses_no_job_and_repeats_only_what_was_in_flight(
    form: str, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    """What was in flight is counted after the kill: before it, a commit may be on its way."""
    jobs = redis_forms.jobs_of(form)
    simulator = simulator_factory("--latency-ms", "150", "--latency-sigma", "0.5")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": str(AT_ONCE),
        "HEADGATE_LEASE_S": "2",
    }
    source, out = installation.write_prompts(tmp_path / "in.jsonl", jobs), tmp_path / "out.jsonl"
    url = installation.database_url(env)
    batch = installation.command(["batch", "run", source, "-o", out], env, tmp_path / "batch.log")
    worker = installation.worker_process(env, tmp_path)
    in_flight = []
    with redis_forms.opened(form) as server, installation.ended_afterwards(batch, worker):
        batch.env |= server.env
        worker.env |= server.env
        worker.start()
        batch.start()
        for wanted in (400, 1_200) if jobs == 2_000 else (jobs // 2,):
            wait_until(lambda: installation.count_ended(url) >= wanted, 60, "jobs to end")  # noqa: B023
            wait_until(lambda: _open(url) > 0, 60, "calls to be under way")
            worker.kill()
            in_flight.append(_open(url))
            worker.start()
        assert installation.exit_code(batch) == 0, batch.log_end()
        assert worker.running
        worker.stop(30)
    for secret in redis_forms.SECRETS:
        assert secret not in worker.log() + batch.log()
    assert max(in_flight) <= AT_ONCE
    installation.each_is_answered_once(out, jobs)
    installation.the_books_agree(url, simulator, jobs, unknown=sum(in_flight))


def _open(url: str) -> int:
    return installation.read_books(url).attempts.get("open", 0)
