"""Commands and their workers run the same in every folder, whatever lies in it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.child import wait_until
from tests.support.command import program, start
from tests.support.installation import nothing_is_left
from tests.support.servers import Simulator, short_folder

ROOT = Path(__file__).parents[2]
AS_INSTALLED = [sys.executable, "-P", "-c", "from headgate.producer.cli import main; main()"]
AS_MODULE = [sys.executable, "-m", "headgate"]
NAMES = ("celery", "redis", "kombu", "json", "click", "producer", "sqlalchemy")


@pytest.fixture
def home() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder / "home"


@pytest.fixture
def env(home: Path, simulator: Simulator) -> dict[str, str]:
    return {
        "HEADGATE_HOME": str(home),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose modules have the names of ours and of our libraries; none may be imported."""
    intruder = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(intruder)
    for name in ("shared", "workers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(intruder)
    return tmp_path


@pytest.mark.parametrize("entry", [AS_INSTALLED, AS_MODULE], ids=["program", "module"])
def test_in_a_folder_with_modules_of_our_names_a_job_is_answered_and_none_of_them_runs(
    entry: list[str], env: dict[str, str], home: Path, project: Path
) -> None:
    argv = [*entry, "submit", "hello", "--wait"]
    ended = program(argv, env, cwd=project, fresh=True, timeout_s=120)
    assert ended.code == 0, ended.err
    assert "hello" in ended.out
    assert "starting one for this command" in ended.err
    assert list(project.rglob("*.ran")) == []
    nothing_is_left(home)


def test_a_tier_function_in_the_current_folder_is_found(
    env: dict[str, str], home: Path, project: Path
) -> None:
    (project / "my_tiers.py").write_text("def tier_of(tenant, user):\n    return None\n")
    told = {**env, "HEADGATE_TIERS": "my_tiers:tier_of"}
    argv = [*AS_MODULE, "submit", "hello", "--wait"]
    ended = program(argv, told, cwd=project, fresh=True, timeout_s=120)
    assert ended.code == 0, ended.err
    nothing_is_left(home)


def workers_of(home: Path) -> list[int]:
    """The pids of the worker processes of this home."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            ours = process.environ().get("HEADGATE_HOME") == str(home)
        except psutil.Error:
            continue
        is_guard = any(word.endswith("guard.py") for word in words)
        if ours and "headgate.workers" in words and not is_guard:
            found.append(process.pid)
    return found


@pytest.mark.slow
def test_sixteen_first_commands_at_once_start_one_worker(env: dict[str, str], home: Path) -> None:
    """Each command has its answer; never is there a second worker beside the first."""
    commands = [start(["submit", f"prompt {n}", "--wait"], env) for n in range(16)]
    most = 0
    try:

        def all_ended() -> bool:
            nonlocal most
            most = max(most, len(workers_of(home)))
            return all(command.poll() is not None for command in commands)

        wait_until(all_ended, 180, "sixteen answers")
    finally:
        for command in commands:
            command.kill()
    said = [command.communicate()[1].decode() for command in commands]
    assert [command.returncode for command in commands] == [0] * 16, said
    assert most == 1
    nothing_is_left(home)
