"""Few file handles (`ulimit -n 256`, as on macOS): fewer jobs run at a time, none is lost."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support import installation
from tests.support.servers import Simulator, ValkeyServer

JOBS = 400


@pytest.mark.slow
@pytest.mark.parametrize(("hard", "allowed", "slots"), [(256, 256, 156), (2048, 2048, 500)])
def test_with_few_file_handles_every_job_ends_once_and_nothing_is_unknown(
    hard: int,
    allowed: int,
    slots: int,
    valkey: ValkeyServer,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "1000", "--latency-sigma", "0.2")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    source, out = installation.write_prompts(tmp_path / "in.jsonl", JOBS), tmp_path / "out.jsonl"
    run: list[str | Path] = ["batch", "run", source, "-o", out]
    batch = installation.command(run, env, tmp_path / "batch.log")
    worker = installation.worker_process(env, tmp_path)
    limited = f'ulimit -Sn 256 && ulimit -Hn {hard} && exec "$@"'
    worker.argv = ["/bin/sh", "-c", limited, "sh", *worker.argv]
    with installation.ended_afterwards(batch, worker):
        worker.start()
        assert psutil.Process(worker.pid).rlimit(psutil.RLIMIT_NOFILE) == (allowed, hard)
        batch.start()
        assert installation.exit_code(batch, 120) == 0, batch.log_end()
    installation.each_is_answered_once(out, JOBS)
    installation.the_books_agree(installation.database_url(env), simulator, JOBS, 0)
    assert f"at most {slots} jobs" in worker.log() or slots == 500
    assert "may now open 2048 files" in worker.log() or hard == 256
    assert "does not answer" not in worker.log()
