"""The commands as one uses them on a bare machine, and that nothing is left of them."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import installation
from tests.support.child import ChildProcess, wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, free_port


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """The embedded default; files of a command stay in the test's folder."""
    return {"HEADGATE_HOME": str(tmp_path / "home")}


@pytest.fixture
def up(env: dict[str, str], tmp_path: Path) -> Iterator[ChildProcess]:
    """`headgate up --simulate`, ready."""
    child = installation.command(["up", "--simulate"], env, tmp_path / "up.log")
    with installation.ended_afterwards(child):
        child.start()
        wait_until(lambda: "everything runs" in child.log(), 30, f"up:\n{child.log()}")
        yield child


@pytest.mark.slow
def test_up_simulate_serves_every_command_and_ctrl_c_leaves_nothing(
    up: ChildProcess, env: dict[str, str], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    submitted = headgate(["submit", "Hello"], env)
    job_id = submitted.out.strip()
    waited = headgate(["result", job_id, "--wait", "--timeout", "60", "--json"], env)
    assert (submitted.code, waited.code) == (0, 0)
    assert waited.document["id"] == job_id
    answer = headgate(["submit", "Hello", "--wait"], env)
    assert (answer.code, answer.out.strip()) == (0, waited.document["content"])
    cached = headgate(["submit", "Hello", "--wait", "--json"], env)
    assert cached.document["cached"] == "exact"

    slow = headgate(["submit", "[[fault:slow:ms=100000]] Hello"], env).out.strip()
    running = lambda: headgate(["result", slow, "--json"], env).document["status"] == "running"  # noqa: E731
    wait_until(running, 10, "the slow job to run")
    assert headgate(["cancel", slow], env).code == 0

    listed = headgate(["jobs", "--json"], env).out.splitlines()
    assert [json.loads(line)["status"] for line in listed] == ["cancelled"] + 3 * ["succeeded"]

    source, out = installation.write_prompts(tmp_path / "in.jsonl", 50), tmp_path / "out.jsonl"
    batch = headgate(["batch", "run", source, "-o", out, "--json"], env)
    assert (batch.code, batch.document["succeeded"]) == (0, 50)
    installation.each_is_answered_once(out, 50)

    up.signal(signal.SIGINT)
    assert installation.exit_code(up, 30) == 130, up.log()
    assert up.log().rstrip().endswith("stopped")
    assert "Traceback" not in up.log(), up.log_from("Traceback")
    installation.nothing_is_left(home)


def test_exit_codes_tell_done_failed_wrong_use_unreachable_and_interrupted(
    up: ChildProcess, env: dict[str, str], tmp_path: Path
) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"prompt": "one"}\n')
    bad.write_text('{"prompt": "one"}\n{"prompt": "[[fault:400]] two"}\n')
    nowhere = {"HEADGATE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    table: list[tuple[int, list[str | Path], dict[str, str]]] = [
        (0, ["submit", "Hello", "--wait"], {}),
        (0, ["batch", "run", good, "-o", tmp_path / "1"], {}),
        (1, ["submit", "[[fault:400]] Hello", "--wait"], {}),
        (1, ["batch", "run", bad, "-o", tmp_path / "2"], {}),
        (2, ["submit", "Hello", "--model", "no-such-model"], {}),
        (2, ["batch", "run", tmp_path / "none", "-o", tmp_path / "3"], {}),
        (2, ["submit", "Hello"], {"HEADGATE_CONCURRENCY": "many"}),
        (3, ["submit", "Hello"], nowhere),
        (3, ["batch", "run", good, "-o", tmp_path / "4"], nowhere),
    ]
    for code, words, others in table:
        ended = headgate(words, {**env, **others})
        assert ended.code == code, (words, ended)
        assert "Traceback" not in ended.err
        assert (ended.err == "") is (code == 0) or words[0] == "batch", (words, ended.err)

    waiting = ["submit", "[[fault:slow:ms=100000]] Hello", "--wait"]
    interrupted = installation.command(waiting, env, tmp_path / "interrupted.log")
    with installation.ended_afterwards(interrupted):
        interrupted.start()
        wait_until(lambda: "running" in headgate(["jobs"], env).out, 20, "the job to run")
        interrupted.signal(signal.SIGINT)
        assert installation.exit_code(interrupted, 20) == 130, interrupted.log()
    assert "Traceback" not in interrupted.log(), interrupted.log_from("Traceback")
    up.signal(signal.SIGINT)
    wait_until(lambda: "stopping" in up.log(), 10, "the first Ctrl-C to be heard")
    up.signal(signal.SIGINT)  # at once, whatever is in flight
    assert installation.exit_code(up, 15) == 130, up.log()
    installation.nothing_is_left(tmp_path / "home")


@pytest.mark.slow
def test_nothing_is_left_of_an_up_that_was_killed(
    up: ChildProcess, env: dict[str, str], tmp_path: Path
) -> None:
    job_id = headgate(["submit", "[[fault:slow:ms=100000]] Hello"], env).out.strip()
    wait_until(lambda: "running" in headgate(["jobs"], env).out, 20, f"{job_id} to run")
    assert len(psutil.Process(up.pid).children(recursive=True)) >= 4  # worker, simulator, guards
    up.kill()
    installation.nothing_is_left(tmp_path / "home", within_s=60)


def test_submit_wait_runs_a_worker_of_its_own_and_ends_it(
    simulator: Simulator, env: dict[str, str], tmp_path: Path
) -> None:
    env["HEADGATE_SIMULATOR_URL"] = simulator.url
    ended = headgate(["submit", "Hello", "--wait"], env)
    assert ended.code == 0, ended.err
    assert "Hello" in ended.out
    assert "starting one for this command" in ended.err
    installation.nothing_is_left(tmp_path / "home")
