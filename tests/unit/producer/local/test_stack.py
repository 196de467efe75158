"""What `headgate up` decides when it starts: Flower's login and port, the simulator's port."""

import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from headgate.producer.local.process import Child
from headgate.producer.local.stack import FLOWER_PORT, LocalStack, flower_login, require_free
from headgate.shared.errors import WrongUse
from headgate.shared.settings import Settings


def test_flowers_login_is_that_of_the_environment_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWER_BASIC_AUTH", "admin:s3cret,ops:other")
    login, shown = flower_login(Settings())
    assert login == "admin:s3cret,ops:other"
    assert shown == "of FLOWER_BASIC_AUTH"


def test_without_a_login_of_the_environment_flower_gets_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FLOWER_BASIC_AUTH", raising=False)
    first, second = flower_login(Settings()), flower_login(Settings())
    assert first[0] == first[1]
    assert first[0].startswith("headgate:")
    assert first != second


def test_a_port_that_another_program_has_is_refused_by_its_option() -> None:
    assert FLOWER_PORT == 5555
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(WrongUse) as caught:
            require_free("--flower-port", port)
    assert str(caught.value).startswith(f"--flower-port: {port}: cannot be used (Address already")
    require_free("--flower-port", port)


LISTENS = """
import pathlib, sys, time
draft = pathlib.Path(sys.argv[1] + ".new")
draft.write_text("http://127.0.0.1:4711")
draft.replace(sys.argv[1])
time.sleep(600)
"""


class Noted(LocalStack):
    """Starts a process that listens nowhere, and says where, in the place of the simulator."""

    def _start(self, name: str, argv: list[str], env: Mapping[str, str], grace_s: float) -> Child:
        self.started_as = list(argv)
        place = argv[argv.index("--ready-file") + 1]
        says = [sys.executable, "-c", LISTENS, place]
        child = Child(name, says, env=env, on_line=lambda _: None, grace_s=grace_s)
        self.children.append(child)
        child.start()
        return child


def test_the_simulator_takes_a_free_port_itself_and_keeps_it_when_it_is_started_again(
    tmp_path: Path,
) -> None:
    """A port that is chosen for it may be another program's by the time it listens."""
    stack = Noted(Settings(home=tmp_path), notify=lambda _: None, on_line=lambda *_: None)
    try:
        assert stack._start_simulator({}, ["--latency-ms", "5"]) == "http://127.0.0.1:4711"
        assert "--port" not in stack.started_as
        assert stack.children[0].argv[-2:] == ["--port", "4711"]
    finally:
        stack.children[0].kill()
