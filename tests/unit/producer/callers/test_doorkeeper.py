"""Who may knock: loopback names, web pages, and preflights."""

from __future__ import annotations

import asyncio

import pytest

from headgate.producer.callers.caller import OPEN_CALLER, Caller
from headgate.producer.callers.doorkeeper import Doorkeeper, origins_of, require_loopback
from headgate.producer.callers.origins import KeyOrigins
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.errors import Unreachable, WrongUse

APP, EVIL = "https://app.example.com", "https://evil.example.com"
OPEN = Doorkeeper(is_open=True)
KEYED = Doorkeeper(origins=origins_of(f" {APP} ,"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_an_open_gateway_listens_on_loopback(host: str) -> None:
    require_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "localhost.evil"])  # noqa: S104
def test_an_open_gateway_listens_nowhere_else(host: str) -> None:
    with pytest.raises(WrongUse, match="HEADGATE_GATEWAY_OPEN"):
        require_loopback(host)


@pytest.mark.parametrize(
    ("host", "origin", "is_let_in"),
    [
        ("localhost", None, True),
        ("localhost:8080", None, True),
        ("LOCALHOST:8080", None, True),
        ("127.0.0.1:8080", None, True),
        ("[::1]:8080", None, True),
        ("[::1]", None, True),
        ("localhost:8080", "http://localhost:8080", True),
        ("localhost:8080", "http://localhost:3000", False),
        ("localhost:8080", EVIL, False),
        ("localhost:8080", "null", False),
        ("localhost:8080", "", False),
        ("evil.example.com", None, False),  # a name that a stranger made to mean 127.0.0.1
        ("evil.example.com:8080", "http://evil.example.com:8080", False),
        ("localhost.evil.example.com", None, False),
        ("127.0.0.1.evil.example.com", None, False),
        ("localhost@evil.example.com", None, False),
        ("evil.example.com@localhost", None, False),
        ("[::1", None, False),
        ("", None, False),
    ],
)
def test_an_open_gateway_takes_nothing_from_pages_of_strangers(
    host: str, origin: str | None, is_let_in: bool
) -> None:
    if is_let_in:
        OPEN.require_local(host, origin)
        return
    with pytest.raises(KeyRefused) as error:
        OPEN.require_local(host, origin)
    assert error.value.http_status == 403


def test_a_gateway_with_keys_looks_at_the_key_first() -> None:
    KEYED.require_local("anything", EVIL)
    plain, listed = Caller("k"), Caller("k", origins=frozenset({EVIL}))
    for origin in (None, APP, "https://gate.example.com"):
        KEYED.require_page("gate.example.com", origin, plain)
    for origin in (EVIL, "null", ""):
        with pytest.raises(KeyRefused, match="may not call this gateway"):
            KEYED.require_page("gate.example.com", origin, plain)
    KEYED.require_page("gate.example.com", EVIL, listed)
    with pytest.raises(KeyRefused):
        OPEN.require_page("localhost:8080", EVIL, OPEN_CALLER)


def test_only_listed_origins_may_read_answers() -> None:
    given = {"access-control-allow-origin": APP, "access-control-expose-headers": "*",
             "vary": "Origin"}  # fmt: skip
    assert KEYED.cors_headers("gate", APP) == given
    assert KEYED.cors_headers("gate", None) == {}
    assert KEYED.cors_headers("gate", EVIL) == {"vary": "Origin"}
    assert KEYED.cors_headers("gate", EVIL, {EVIL})["access-control-allow-origin"] == EVIL
    assert OPEN.cors_headers("localhost", APP) == {"vary": "Origin"}


def test_a_preflight_names_what_the_page_may_send() -> None:
    found = KEYED.preflight("gate", APP, "authorization,x-stainless-os")
    assert found["access-control-allow-origin"] == APP
    assert found["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in found["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in found
    assert "access-control-allow-headers" not in KEYED.preflight("gate", APP, "a\r\nb: c")
    assert KEYED.preflight("gate", EVIL, "authorization") == {"vary": "Origin"}


def test_the_origins_of_keys_are_read_now_and_then() -> None:
    now, is_away, loads = [0.0], [False], []

    def load() -> frozenset[str]:
        loads.append(now[0])
        if is_away[0]:
            raise Unreachable("the database", "it is away", "start it")
        return frozenset({f"https://{len(loads)}.example.com"})

    async def main() -> None:
        origins = KeyOrigins(load, lambda: now[0])
        first = await asyncio.gather(*(origins.get() for _ in range(10)))
        assert set(first) == {frozenset({"https://1.example.com"})}
        now[0], is_away[0] = 5.0, True
        assert await origins.get() == first[0]
        now[0], is_away[0] = 10.0, False
        assert await origins.get() == {"https://3.example.com"}

    asyncio.run(main())
    assert loads == [0.0, 5.0, 10.0]
