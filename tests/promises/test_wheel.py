"""The wheel, installed where nothing is but what it asks for itself, runs the whole system."""

import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests import ROOT
from tests.support import installation
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import Simulator, ValkeyServer

PARTS = ("headgate", "producer", "workers", "shared", "migrations", "pyproject.toml", "README.md")


def run(argv: Sequence[str | Path], folder: Path, env: dict[str, str]) -> str:
    """What the command printed; it has succeeded."""
    ended = subprocess.run(
        [str(word) for word in argv],
        cwd=folder, env=env, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def env() -> dict[str, str]:
    """Our environment without the path to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def pip(env: dict[str, str]) -> list[str]:
    """A pip: that of our environment or, where Debian made it without one, the one outside."""
    for python in (Path(sys.executable), Path(sys.base_prefix) / "bin" / "python3"):
        there = subprocess.run(
            [python, "-m", "pip", "--version"], env=env, capture_output=True, check=False
        )
        if there.returncode == 0:
            return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    raise AssertionError("no pip")


def build(folder: Path, env: dict[str, str]) -> Path:
    """A wheel of the checkout; built from a copy, since builds leave files behind."""
    copy = folder / "copy"
    copy.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part,
                copy / part,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            shutil.copy(ROOT / part, copy)
    run([*pip(env), "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, copy], folder, env)
    shutil.rmtree(copy)
    [wheel] = folder.glob("headgate-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Path:
    """The wheel of the checkout."""
    return build(tmp_path_factory.mktemp("wheel"), env)


@pytest.fixture(scope="module")
def programs(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]
) -> Iterator[Path]:
    """The programs of a fresh environment, made and locked as deploy/Dockerfile does it.

    Where the lock does not hold, only the wheel is in it, and what it depends on.
    """
    folder = tmp_path_factory.mktemp("wheel-installed") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    into = [*pip(env), "--python", str(folder / "bin" / "python")]
    install = [*into, "install", "--quiet", "--no-compile"]
    lock = ROOT / "deploy" / "requirements.lock"
    if (
        sys.platform == "linux"
        and f"Python {sys.version_info[0]}.{sys.version_info[1]},"
        in (lock.read_text().splitlines()[0])
    ):
        run([*install, "--only-binary=:all:", "--require-hashes", "-r", lock], folder, env)
        run([*install, "--no-deps", "--no-index", wheel], folder, env)
        run([*into, "check"], folder, env)
    else:
        run([*install, "--prefer-binary", wheel], folder, env)
    yield folder / "bin"
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_wheel_holds_the_program_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    assert not [name for name in names if name.startswith("tests/")]
    assert "headgate/migrations/env.py" in names


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_wheel_installed_elsewhere_runs_up_simulate(
    programs: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    where = "import headgate, sys; print(headgate.__file__, *sys.path, sep='\\n')"
    found = run([programs / "python", "-c", where], empty, env)
    assert found.startswith(str(programs.parent))
    assert str(ROOT) not in found

    headgate = programs / "headgate"
    up = ChildProcess([headgate, "up", "--simulate"], log_path=tmp_path / "up.log", cwd=empty)
    up.env = {"PYTHONPATH": ""}
    with installation.ended_afterwards(up):
        up.start()
        wait_until(lambda: "everything runs" in up.log(), 30, "up to be ready")
        answer = run([headgate, "submit", "Hello", "--wait"], empty, env)
        assert "Hello" in answer
        assert run([headgate, "--version"], empty, env).startswith("headgate ")
        up.signal(signal.SIGINT)
        assert installation.exit_code(up, 30) == 130, up.log()
    assert str(ROOT) not in up.log()
    assert [path.name for path in empty.iterdir()] == [".headgate"]
    installation.nothing_is_left(empty / ".headgate")


def as_in_a_container() -> list[str]:
    """Words before a command: no capabilities, and PID 1 of its own, as far as we may."""
    found = []
    if os.geteuid() == 0:
        for words in (["unshare", "--pid", "--fork", "--kill-child"],
                      ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]):  # fmt: skip
            there = shutil.which(words[0])
            if (
                there
                and subprocess.run([*words, "true"], capture_output=True, check=False).returncode
                == 0
            ):
                found += words
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_worker_runs_on_a_read_only_tree_and_as_process_one(
    programs: Path,
    valkey: ValkeyServer,
    simulator: Simulator,
    tmp_path: Path,
    env: dict[str, str],
) -> None:
    prefix = as_in_a_container()
    if os.geteuid() == 0 and "setpriv" not in prefix:
        pytest.skip("root may write everywhere, and there is no setpriv to change that")
    tree = programs.parent
    run(["chmod", "-R", "a-w", tree], tmp_path, env)
    home = tmp_path / "home"
    home.mkdir()
    told = {
        **env,
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HEADGATE_HOME": str(home),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    headgate = programs / "headgate"
    worker = ChildProcess([*prefix, headgate, "worker"], log_path=tmp_path / "w.log", cwd=home)
    worker.env = told
    try:
        wrote = subprocess.run([*prefix, "touch", tree / "x"], capture_output=True, check=False)
        assert wrote.returncode != 0
        with installation.ended_afterwards(worker):
            worker.start()
            answer = run([*prefix, headgate, "submit", "Hello", "--wait"], home, told)
            assert "Hello" in answer
            assert run([headgate, "alive"], home, told)
            inside = psutil.Process(worker.pid)
            if "unshare" in prefix:
                [inside] = inside.children()
            inside.send_signal(signal.SIGTERM)
            assert installation.exit_code(worker, 30) == 0, worker.log()
        assert "Read-only" not in worker.log()
    finally:
        run(["chmod", "-R", "u+w", tree], tmp_path, env)
