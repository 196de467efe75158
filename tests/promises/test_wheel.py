"""The wheel, installed where nothing is but what it asks for itself, runs the whole system."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests import ROOT
from tests.support import installation
from tests.support.child import ChildProcess, wait_until
from tests.support.servers import Simulator, ValkeyServer

LEFTOVERS = (".git", ".venv", ".headgate", ".*_cache", "__pycache__", "dist", "build")
"""What a fresh clone does not have."""


@dataclass(frozen=True, slots=True)
class Archives:
    """The files that a release consists of."""

    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


def run(argv: Sequence[str | Path], folder: Path, env: dict[str, str]) -> str:
    """What the command printed; it has succeeded."""
    ended = subprocess.run(
        [str(word) for word in argv],
        cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False,
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


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Archives:
    """The archives of a clean copy of the checkout, and the wheel that its sdist gives."""
    folder = tmp_path_factory.mktemp("archives")
    tools, copy = folder / "tools", folder / "copy"
    install = [*pip(env), "install", "--quiet", "--no-compile", "--only-binary=:all:"]
    lock = ROOT / "deploy" / "build.lock"
    run([*install, "--target", tools, "--require-hashes", "-r", lock], folder, env)
    shutil.copytree(ROOT, copy, symlinks=True, ignore=shutil.ignore_patterns(*LEFTOVERS))
    build = [sys.executable, "-m", "hatchling", "build", "--directory"]
    with_tools = env | {"PYTHONPATH": str(tools)}
    run([*build, folder / "of_clone", "-t", "sdist", "-t", "wheel"], copy, with_tools)
    [sdist] = (folder / "of_clone").glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    [source] = (folder / "unpacked").iterdir()
    run([*build, folder / "of_sdist", "-t", "wheel"], source, with_tools)
    [wheel] = (folder / "of_clone").glob("*.whl")
    [again] = (folder / "of_sdist").glob("*.whl")
    return Archives(sdist, wheel, again)


@pytest.fixture(scope="module")
def wheel(archives: Archives) -> Path:
    """The wheel of the checkout."""
    return archives.wheel


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


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as packed:
        return sorted(packed.namelist())


@pytest.mark.slow
def test_the_wheel_holds_one_package_with_everything_and_no_tests(wheel: Path) -> None:
    names = names_in(wheel)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"headgate"}
    assert {"headgate/py.typed", "headgate/migrations/env.py"} <= set(names)
    for folder in ("producer", "workers", "shared", "migrations"):
        in_tree = {
            f"headgate/{path.relative_to(ROOT).as_posix()}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert in_tree == {name for name in names if name.startswith(f"headgate/{folder}/")}


@pytest.mark.slow
def test_a_clone_and_its_sdist_give_wheels_of_equal_files(archives: Archives) -> None:
    assert names_in(archives.wheel) == names_in(archives.wheel_of_sdist)
    with tarfile.open(archives.sdist) as packed:
        tops = {name.split("/")[1] for name in packed.getnames()}
        assert not [member.name for member in packed if member.issym()]
    assert {"headgate", "producer", "workers", "shared", "migrations", "LICENSE"} <= tops
    assert "tests" not in tops


@pytest.mark.slow
@pytest.mark.timeout(900)
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
        wait_until(lambda: "everything runs" in up.log(), 60, "up to be ready")
        answer = run([headgate, "submit", "Hello", "--wait"], empty, env)
        assert "Hello" in answer
        assert run([headgate, "--version"], empty, env).startswith("headgate ")
        up.signal(signal.SIGINT)
        assert installation.exit_code(up, 60) == 130, up.log()
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
@pytest.mark.timeout(900)
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
    settings = {
        **env,
        "PYTHONPATH": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HEADGATE_HOME": str(home),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    headgate = programs / "headgate"
    worker = ChildProcess([*prefix, headgate, "worker"], log_path=tmp_path / "w.log", cwd=home)
    worker.env = settings
    try:
        wrote = subprocess.run([*prefix, "touch", tree / "x"], capture_output=True, check=False)
        assert wrote.returncode != 0
        with installation.ended_afterwards(worker):
            worker.start()
            answer = run([*prefix, headgate, "submit", "Hello", "--wait"], home, settings)
            assert "Hello" in answer
            assert run([headgate, "alive"], home, settings)
            inside = psutil.Process(worker.pid)
            if "unshare" in prefix:
                [inside] = inside.children()
            inside.send_signal(signal.SIGTERM)
            assert installation.exit_code(worker, 60) == 0, worker.log()
        assert "Read-only" not in worker.log()
    finally:
        run(["chmod", "-R", "u+w", tree], tmp_path, env)


OWN_PACKAGES = ("shared", "workers", "producer", "migrations")
OWN_FILES = ("errors", "settings", "app", "client", "tasks", "env")

OWN_PROGRAM = """
import shared.errors, workers.app, producer.client, migrations.env
from headgate import Client, HeadgateError, JobFailed
assert shared.errors.OWN == workers.app.OWN == producer.client.OWN == migrations.env.OWN
with Client() as client:
    print(client.submit("Hello from the project", model="gpt-4o-mini").result(timeout_s=60).content)
"""


def own_project(folder: Path) -> Path:
    """A project whose packages have the names of our folders."""
    for package in OWN_PACKAGES:
        (folder / package).mkdir(parents=True)
        for module in ("__init__", *OWN_FILES):
            (folder / package / f"{module}.py").write_text("OWN = True\n")
    (folder / "program.py").write_text(OWN_PROGRAM)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("python_path", ["", "."], ids=["plain", "PYTHONPATH=."])
def test_a_project_with_its_own_shared_workers_and_producer_packages_can_use_everything(
    programs: Path, tmp_path: Path, env: dict[str, str], python_path: str
) -> None:
    project = own_project(tmp_path / "project")
    env = env | {"PYTHONPATH": python_path}
    up = ChildProcess(
        [programs / "headgate", "up", "--simulate"], log_path=tmp_path / "up.log", cwd=project
    )
    words = ["-A", "headgate.workers.app", "worker", "--loglevel", "INFO", "--hostname", "own@%h"]
    worker = ChildProcess(
        [programs / "celery", *words], log_path=tmp_path / "worker.log", cwd=project
    )
    up.env = worker.env = env
    with installation.ended_afterwards(worker, up):
        up.start()
        wait_until(lambda: "everything runs" in up.log(), 60, "up to be ready")
        assert "Hello" in run([programs / "headgate", "submit", "Hello", "--wait"], project, env)
        assert "Hello" in run([programs / "python", "program.py"], project, env)
        worker.start()  # after the jobs: it does not know the simulated provider
        wait_until(lambda: " ready." in worker.log(), 60, "the worker to be ready")
        worker.signal(signal.SIGTERM)
        assert installation.exit_code(worker, 60) == 0, worker.log()
        up.signal(signal.SIGINT)
        assert installation.exit_code(up, 60) == 130, up.log()
    installation.nothing_is_left(project / ".headgate")
