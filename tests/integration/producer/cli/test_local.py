"""Commands that run processes of their own: these work, and end with the command in every way."""

import base64
import json
import re
import signal
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from headgate.producer.local.process import Child, ChildGaveUp, stop_all
from headgate.shared import settings as reader
from headgate.shared.servers import embedded
from tests.support.child import BUSY, wait_until
from tests.support.command import Started, headgate, start
from tests.support.servers import Simulator, free_port, short_folder


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a home; stop its embedded server at the end."""
    with short_folder() as folder:
        yield folder / "home"
        found = embedded.processes(folder / "home")
        if found is not None:
            with suppress(psutil.NoSuchProcess):  # its time was over by itself
                psutil.Process(found.keeper_pid).terminate()
            wait_until(lambda: not psutil.pid_exists(found.keeper_pid), 20, "the keeper to end")


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    """Return the settings of an embedded installation."""
    return {"HEADGATE_HOME": str(home), "HEADGATE_DRAIN_S": "3"}


def workers_under(pid: int) -> list[psutil.Process]:
    """Return the workers among the descendants of the process."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            command_line = " ".join(child.cmdline())
        except psutil.Error:
            continue  # it has just ended
        if "launch.py headgate.workers --" in command_line and "guard.py" not in command_line:
            found.append(child)
    return found


def gone(process: psutil.Process) -> bool:
    """Return whether the process has ended."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return True


def child_of(argv: list[str], lines: list[str], grace_s: float = 5.0) -> Child:
    """Return a child of these tests."""
    return Child("it", argv, env=reader.environment(), on_line=lines.append, grace_s=grace_s)


def test_a_process_that_dies_at_once_again_and_again_is_given_up_with_its_last_words() -> None:
    lines: list[str] = []
    child = child_of(["sh", "-c", "echo no luck; exit 4"], lines)
    child.start()

    with pytest.raises(ChildGaveUp, match="no luck") as raised:
        wait_until(lambda: child.restart_dead() == "never", 30, "the child to be given up")
    assert raised.value.code == 4
    assert lines == ["no luck"] * 5


def test_a_process_that_does_not_end_when_asked_is_killed_after_its_time() -> None:
    lines: list[str] = []
    child = child_of(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], lines, 0.5
    )
    child.start()
    wait_until(lambda: lines == ["ready"], 10)
    assert stop_all([child]) == ["it"]
    assert not child.running


def test_a_first_answer_needs_no_worker_of_ones_own(
    env: dict[str, str], simulator: Simulator
) -> None:
    ended = headgate(
        ["submit", "hello", "--wait"], {**env, "HEADGATE_SIMULATOR_URL": simulator.url}
    )
    assert ended.code == 0, ended.err
    assert "hello" in ended.out
    assert "starting one for this command" in ended.err


@pytest.fixture
def batch(
    env: dict[str, str], tmp_path: Path, simulator_factory: Callable[..., Simulator]
) -> tuple[dict[str, str], list[str | Path], Path, Simulator]:
    """Return settings, command, output and simulator of a batch of 400 jobs that takes seconds."""
    simulator = simulator_factory("--latency-ms", "400")
    source, out = tmp_path / "in", tmp_path / "out"
    source.write_text("".join(f'{{"prompt": "prompt {n}"}}\n' for n in range(400)))
    settings = {
        **env,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "30",
        "HEADGATE_DRAIN_S": "30",  # no call is cut off, however slow the machine is
    }
    return settings, ["batch", "run", source, "-o", out], out, simulator


def line_count(path: Path) -> int:
    """Return how many whole lines the file has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def all_once(out: Path, count: int) -> None:
    """Assert that every line of input has one answer."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert Counter(line["headgate"]["line"] for line in lines) == Counter(range(1, count + 1))
    assert all(line["error"] is None for line in lines)


def test_a_killed_batch_takes_its_worker_along_and_nothing_is_paid_twice(
    batch: tuple[dict[str, str], list[str | Path], Path, Simulator],
) -> None:
    env, arguments, out, simulator = batch
    command = start(arguments, env)
    wait_until(lambda: line_count(out) > 60, 60)
    [worker] = workers_under(command.pid)
    command.send_signal(signal.SIGKILL)
    command.communicate()
    wait_until(lambda: gone(worker), 15, "the worker to end")
    ended = headgate([*arguments, "--resume"], env)
    assert ended.code == 0, ended.err
    all_once(out, 400)
    assert simulator.stats()["prompts"]["paid_again"] == 0


def test_ctrl_c_lets_the_worker_finish_and_the_batch_goes_on_later(
    batch: tuple[dict[str, str], list[str | Path], Path, Simulator],
) -> None:
    env, arguments, out, simulator = batch
    command = start(arguments, env)
    wait_until(lambda: line_count(out) > 60, 60)
    command.send_signal(signal.SIGINT)
    _, output = command.communicate(timeout=30 * BUSY)
    assert command.returncode == 130, output
    assert b"--resume" in output
    assert 60 < line_count(out) < 400
    ended = headgate([*arguments, "--resume"], env)
    assert ended.code == 0, ended.err
    all_once(out, 400)
    assert simulator.stats()["prompts"]["paid_again"] == 0


def test_a_second_ctrl_c_ends_all_at_once(
    batch: tuple[dict[str, str], list[str | Path], Path, Simulator],
) -> None:
    env, arguments, out, _ = batch
    command = start(arguments, {**env, "HEADGATE_DRAIN_S": "600"})
    wait_until(lambda: line_count(out) > 60, 60)
    [worker] = workers_under(command.pid)
    worker.suspend()
    command.send_signal(signal.SIGINT)
    assert command.stderr is not None
    while b"again" not in command.stderr.readline():
        pass
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=50 * BUSY)  # less than the drain time
    assert command.returncode == 130
    wait_until(lambda: gone(worker), 15, "the worker to end")


def test_a_killed_worker_is_started_again_and_the_batch_ends(
    batch: tuple[dict[str, str], list[str | Path], Path, Simulator],
) -> None:
    env, arguments, out, _ = batch
    command = start(arguments, {**env, "HEADGATE_LEASE_S": "6"})
    wait_until(lambda: line_count(out) > 60, 60)
    [worker] = workers_under(command.pid)
    worker.kill()
    _, output = command.communicate(timeout=90 * BUSY)
    assert command.returncode == 0, output
    assert b"starting it again" in output
    all_once(out, 400)


def started_up(env: dict[str, str], *flags: str) -> tuple[Started, str]:
    """Start `headgate up`; return it with its output up to its list of addresses."""
    command = start(["up", *flags], env)
    assert command.stderr is not None
    output = ""
    for raw in command.stderr:
        output += raw.decode()
        if "everything runs" in output and "simulated provider" in output:
            return command, output
    raise AssertionError(output)


def test_up_answers_jobs_without_a_key_and_ctrl_c_leaves_nothing(env: dict[str, str]) -> None:
    command, output = started_up(env, "--simulate", "--workers", "2")
    children = psutil.Process(command.pid).children(recursive=True)
    assert re.search(r"simulated provider +http://127\.0\.0\.1:\d+", output)
    assert headgate(["submit", "hello", "--wait"], env).code == 0
    workers_under(command.pid)[0].kill()
    wait_until(lambda: len(workers_under(command.pid)) == 2, 20, "the worker to be back")
    children += psutil.Process(command.pid).children(recursive=True)
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=30 * BUSY)
    assert command.returncode == 130
    wait_until(lambda: all(gone(child) for child in children), 15, "all to end")


def test_up_ends_in_time_even_when_a_worker_hangs(env: dict[str, str]) -> None:
    command, _ = started_up({**env, "HEADGATE_DRAIN_S": "0.5"}, "--simulate")
    [worker] = workers_under(command.pid)
    worker.suspend()
    command.send_signal(signal.SIGTERM)
    _, output = command.communicate(timeout=30 * BUSY)
    assert command.returncode == 0
    assert b"was killed" in output
    wait_until(lambda: gone(worker), 15, "the worker to end")


def test_a_killed_up_takes_everything_along(env: dict[str, str]) -> None:
    command, _ = started_up(env, "--simulate")
    children = psutil.Process(command.pid).children(recursive=True)
    command.kill()
    command.communicate()
    for child in children:
        wait_until(lambda child=child: gone(child), 15, f"{child} to end")  # type: ignore[misc]


def status_of(url: str, login: str) -> int | None:
    """Return the HTTP status of a page that wants a login; None while nobody answers."""
    basic = base64.b64encode(login.encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (loopback)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310 (loopback)
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_up_says_that_no_key_is_set_and_runs_flower_with_the_login_of_the_environment(
    env: dict[str, str],
) -> None:
    port = free_port()
    flower = f"http://127.0.0.1:{port}/"
    env |= {"FLOWER_BASIC_AUTH": "admin:s3cret"}
    command = start(["up", "--flower", "--flower-port", str(port)], env)
    assert command.stderr is not None
    output = b"".join(iter(command.stderr.readline, b"")) if command.poll() is not None else b""
    while b"Ctrl-C" not in output:
        output += command.stderr.readline()
    while b"of FLOWER_BASIC_AUTH" not in output:
        output += command.stderr.readline()
    wait_until(lambda: status_of(flower, "admin:s3cret") == 200, 30, "Flower to answer")
    assert status_of(flower, "headgate:other") == 401
    command.send_signal(signal.SIGTERM)
    command.communicate(timeout=30 * BUSY)
    for way in (b"set OPENAI_API_KEY", b"`headgate up --simulate`", b"a local server"):
        assert way in output
    assert b"s3cret" not in output
    assert command.returncode == 0
