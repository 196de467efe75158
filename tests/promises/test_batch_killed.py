"""kill -9 of the batch command, of it and its worker, and Ctrl-C: `--resume` goes on."""

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from headgate.shared.servers import embedded
from tests.support import installation, redis_forms
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import Simulator

TORN = b'{"id": "batch_req_torn", "custom_id": "id-'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "form"),
    [
        *((way, "embedded") for way in ("command", "command and worker", "ctrl-c")),
        *(("command", form) for form in redis_forms.FORMS),
    ],
)
def test_a_killed_batch_command_is_resumed_without_paying_twice(
    way: str, form: str, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    """On the embedded default the second way kills the command's own worker with it."""
    jobs = redis_forms.jobs_of(form)
    simulator = simulator_factory("--latency-ms", "150", "--latency-sigma", "0.2")
    home = tmp_path / "home"
    env = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": str(jobs // 20),  # it takes 3 s at least: it is killed amid them
        "HEADGATE_LEASE_S": "2",
    }
    source, out = installation.write_prompts(tmp_path / "in.jsonl", jobs), tmp_path / "out.jsonl"
    url = installation.database_url(env)
    run: list[str | Path] = ["batch", "run", source, "-o", out]
    first = installation.command(run, env, tmp_path / "first.log")
    again = installation.command([*run, "--resume"], env, tmp_path / "again.log")
    worker = installation.worker_process(env, tmp_path)
    with ExitStack() as stack:
        if form != "embedded":
            server = stack.enter_context(redis_forms.opened(form))
            for child in (first, again, worker):
                child.env |= server.env
        stack.enter_context(installation.ended_afterwards(first, again, worker))
        if way == "command":
            worker.start()
        first.start()
        wait_until(lambda: installation.count_lines(out) >= jobs // 4, 60, "lines of output")
        unknown = _end(first, way, url)
        assert installation.count_lines(out) < jobs
        if way != "ctrl-c":
            with out.open("ab") as torn:
                torn.write(TORN)
        again.start()
        assert installation.exit_code(again, 90) == 0, again.log_end()
        worker.kill()
    installation.each_is_answered_once(out, jobs)
    installation.the_books_agree(url, simulator, jobs, unknown)
    if form == "embedded":
        wait_until(lambda: embedded.processes(home) is None, 30, "the keeper to end")


def _end(command: ChildProcess, way: str, url: str) -> int:
    """The command is gone in that way; gives how many attempts were under way and lost."""
    if way == "ctrl-c":
        command.signal(signal.SIGINT)
        assert installation.exit_code(command) == 130
        assert "--resume" in command.log()
        return 0
    if way == "command":
        command.kill()
        return 0
    [worker] = [
        child
        for child in psutil.Process(command.pid).children(recursive=True)
        if "headgate.workers" in child.cmdline() and "guard.py" not in " ".join(child.cmdline())
    ]
    worker.suspend()  # the command, which ends first, must not start another one
    command.kill()
    worker.kill()
    wait_until(lambda: not worker.is_running(), 30, "the worker to end")
    # A busy machine may end it in the moment in which all calls were answered and none began.
    return installation.read_books(url).attempts.get("open", 0)
