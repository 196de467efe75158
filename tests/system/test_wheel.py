"""The wheel, installed where no checkout is, runs the whole system."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.child import ChildProcess, wait_until
from tests.system import rig

ROOT = Path(__file__).parents[2]
PARTS = ("producer", "workers", "shared", "migrations", "pyproject.toml", "README.md")


def run(argv: Sequence[str | Path], folder: Path, env: dict[str, str]) -> str:
    """What the command printed; it has succeeded."""
    ended = subprocess.run(
        [str(word) for word in argv],
        cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
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
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, copy)
    run([*pip(env), "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, copy], folder, env)
    shutil.rmtree(copy)
    [wheel] = folder.glob("headgate-*.whl")
    return wheel


def install(wheel: Path, folder: Path, env: dict[str, str]) -> Path:
    """A fresh environment with the wheel in it, and ours behind it for what it depends on."""
    venv.create(folder, with_pip=False, symlinks=True)
    place = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", place))
    into = ["--python", str(folder / "bin" / "python")]
    run([*pip(env), *into, "install", "--quiet", "--no-deps", "--no-index", wheel], folder, env)
    # Only the folder itself: the .pth files in it, which lead to the checkout, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


@pytest.mark.slow
def test_a_wheel_installed_elsewhere_runs_up_simulate(tmp_path: Path, env: dict[str, str]) -> None:
    wheel = build(tmp_path, env)
    with zipfile.ZipFile(wheel) as packed:
        assert not [name for name in packed.namelist() if name.startswith("tests/")]
    programs = install(wheel, tmp_path / "venv", env)
    empty = tmp_path / "empty"
    empty.mkdir()
    said = run([programs / "python", "-c", "import producer; print(producer.__file__)"], empty, env)
    assert said.startswith(str(tmp_path / "venv"))

    headgate = programs / "headgate"
    up = ChildProcess([headgate, "up", "--simulate"], log_path=tmp_path / "up.log", cwd=empty)
    up.env = {"PYTHONPATH": ""}
    with rig.ended_afterwards(up):
        up.start()
        wait_until(lambda: "everything runs" in up.log(), 30, "up to be ready")
        answer = run([headgate, "submit", "Hello", "--wait"], empty, env)
        assert "Hello" in answer
        assert run([headgate, "--version"], empty, env).startswith("headgate ")
        up.signal(signal.SIGINT)
        assert rig.exit_code(up, 30) == 130, up.log()
    assert str(ROOT) not in up.log()
    assert [path.name for path in empty.iterdir()] == [".headgate"]
    rig.nothing_is_left(empty / ".headgate")
