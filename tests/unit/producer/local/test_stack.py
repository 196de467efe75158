"""What `headgate up` decides before it starts anything: Flower's login and port."""

import socket

import pytest

from headgate.producer.local.stack import FLOWER_PORT, flower_login, require_free
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
