"""A home may have any name: all of it lies inside, and nothing of it listens on the network."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headgate.shared.servers import embedded
from tests.support.command import headgate
from tests.support.installation import nothing_is_left
from tests.support.servers import Simulator, short_folder

NAMES = [
    "feature%2Fx",
    "what?mode=memory",
    "draft#2",
    "a[1]",
    "a{b,c}*",
    "two words",
    'it\'s "quoted"',
    "back\\slash",
    "grün",
]


@pytest.fixture
def base() -> Iterator[Path]:
    with short_folder() as base:
        yield base


def listens_on_the_network(pid: int) -> list[object]:
    found = psutil.Process(pid).net_connections(kind="inet")
    return [connection.laddr for connection in found]


@pytest.mark.parametrize("name", NAMES)
def test_all_of_an_oddly_named_home_lies_inside_and_off_the_network(base: Path, name: str) -> None:
    home = base / name
    env = {"HEADGATE_HOME": str(home)}
    submitted = headgate(["submit", "hello"], env)
    assert submitted.code == 0, submitted.err
    processes = embedded.processes(home)
    assert processes is not None
    assert listens_on_the_network(processes.server_pid) == []

    listed = headgate(["jobs", "--json"], env)
    assert submitted.out.strip() in listed.out
    assert {path.name for path in base.iterdir()} == {name}
    assert {"headgate.db", "valkey"} <= {path.name for path in home.iterdir()}
    nothing_is_left(home)


@pytest.mark.parametrize("name", ["a[1] 50%25?x#y", "b[1]" + "x" * 120])
def test_a_worker_answers_in_an_oddly_named_home(
    base: Path, name: str, simulator: Simulator
) -> None:
    """The path of the second one is too long for a socket: its server listens on loopback."""
    home = base / name
    env = {"HEADGATE_HOME": str(home), "HEADGATE_SIMULATOR_URL": simulator.url}
    answered = headgate(["submit", "hello", "--wait"], env)
    assert answered.code == 0, answered.err
    assert "hello" in answered.out
    processes = embedded.processes(home)
    assert processes is not None
    heard = [at.ip for at in listens_on_the_network(processes.server_pid)]  # type: ignore[attr-defined]
    assert set(heard) <= {"127.0.0.1"}
    assert bool(heard) == (len(name) > 100)
    assert {path.name for path in base.iterdir()} == {name}
    nothing_is_left(home)


def test_a_relative_home_with_brackets_is_found_again(base: Path) -> None:
    env = {"HEADGATE_HOME": "a[1]"}
    submitted = headgate(["submit", "hello"], env, cwd=base)
    assert submitted.code == 0, submitted.err
    assert submitted.out.strip() in headgate(["jobs", "--json"], env, cwd=base).out
    assert (base / "a[1]" / "headgate.db").exists()
    nothing_is_left(base / "a[1]")
