"""kill -9 of a worker in the middle of a batch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.child import wait_until
from tests.servers import Simulator, ValkeyServer
from tests.system import rig

JOBS = 2_000
AT_ONCE = 100


@pytest.mark.slow
def test_a_killed_worker_loses_no_job_and_repeats_only_what_was_in_flight(
    valkey_factory: Callable[..., ValkeyServer],
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    """Before each kill the worker is frozen, so that what is in flight can be counted exactly."""
    simulator = simulator_factory("--latency-ms", "150", "--latency-sigma", "0.2")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey_factory(appendonly=True).url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": str(AT_ONCE),
        "HEADGATE_LEASE_S": "2",
    }
    source, out = rig.write_prompts(tmp_path / "in.jsonl", JOBS), tmp_path / "out.jsonl"
    url = rig.database_url(env)
    batch = rig.command(["batch", "run", source, "-o", out], env, tmp_path / "batch.log")
    worker = rig.worker_process(env, tmp_path)
    in_flight = []
    with rig.ended_afterwards(batch, worker):
        worker.start()
        batch.start()
        for wanted in (400, 1_200):
            wait_until(lambda: rig.count_ended(url) >= wanted, 60, "jobs to end")  # noqa: B023
            worker.freeze()
            in_flight.append(rig.read_books(url).attempts["open"])
            worker.kill()
            worker.start()
        assert rig.exit_code(batch) == 0, batch.log_end()
        assert worker.running
        worker.stop(30)
    assert 0 < min(in_flight) <= max(in_flight) <= AT_ONCE
    rig.each_is_answered_once(out, JOBS)
    rig.the_books_agree(url, simulator, JOBS, unknown=sum(in_flight))
