"""The parts of clients over HTTP that need no gateway: addresses, bodies, refusals, events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from headgate import (
    AsyncClient,
    Client,
    HeadgateError,
    InvalidRequest,
    KeyRefused,
    Settings,
    Unfit,
    UnknownJob,
    Unreachable,
    WrongUse,
)
from headgate.producer.client.http import job_bodies, patience, remote_answer
from headgate.producer.client.http.address import GatewayAddress
from headgate.producer.client.http.ends import JobEnds
from headgate.producer.client.http.job_bodies import renamed, sliced
from headgate.producer.client.http.patience import Patience
from headgate.producer.client.http.refusals import is_passing, refusal_of
from headgate.producer.client.http.server_events import ReadEvent, events_in

KEY = "hg-" + "s3cret" * 7


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://llm.example.com/", "https://llm.example.com"),
        ("https://llm.example.com/v1", "https://llm.example.com"),
        (" https://llm.example.com/team/v1/ ", "https://llm.example.com/team"),
        ("http://[::1]:8080/v1", "http://[::1]:8080"),
    ],
)
def test_an_address_is_taken_with_or_without_its_version(given: str, url: str) -> None:
    assert GatewayAddress.of(given, KEY).url == url


def test_a_proxy_is_taken_with_or_without_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("http://u:s3cret@proxy:3128", "u:s3cret@proxy:3128"):
        monkeypatch.setenv("https_proxy", text)
        found = GatewayAddress.of("https://llm.example.com", KEY)
        assert found.proxy == "http://u:s3cret@proxy:3128"
        assert "s3cret" not in repr(found)
    monkeypatch.setenv("https_proxy", "socks5://u:s3cret@proxy:1080")
    with pytest.raises(WrongUse, match="https_proxy") as caught:
        GatewayAddress.of("https://llm.example.com", KEY)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "llm.example.com", "redis://h", "https://", "https://u:s3cret@h", "https://h?key=s3cret",
        "https://h/#s3cret", "http://h:99999", "http://h\nx", 5, b"https://h",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_its_secrets(given: Any) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(WrongUse) as caught:
            kind(base_url=given)
        assert caught.value.field == "base_url"
        assert "u:s3cret" not in str(caught.value) + repr(caught.value.value)


@pytest.mark.parametrize("given", ["a b", "ключ", "x\r\ny: z", 5, b"x", " "])
def test_what_is_no_key_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(WrongUse, match=r"api_key: '\*\*\*'"):
        Client(base_url="https://h", api_key=given)


def test_a_key_without_a_gateway_and_two_ways_are_refused() -> None:
    with pytest.raises(WrongUse, match="base_url, too"):
        Client(api_key=KEY)
    with pytest.raises(WrongUse, match="without settings"):
        Client(Settings(redis_url="redis://h"), base_url="https://h")


def test_the_key_is_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    address = GatewayAddress.of("http://llm.example.com", SecretStr(KEY))
    assert address.headers() == {"authorization": f"Bearer {KEY}"}
    assert KEY not in repr(address) + str(address)
    assert KEY not in caplog.text
    assert "use https" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        GatewayAddress.of("http://127.0.0.1", KEY)
        GatewayAddress.of("https://llm.example.com", KEY)
        GatewayAddress.of("http://llm.example.com")
    assert caplog.text == ""


def test_an_address_finds_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example.com")
    assert GatewayAddress.of("https://llm.example.com").proxy == "http://proxy:3128"
    assert GatewayAddress.of("https://inside.example.com").proxy is None
    assert GatewayAddress.of("https://127.0.0.1").proxy is None


def test_many_requests_go_in_slices_by_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = sliced((f"{n}" for n in range(10_001)), 1)
    assert [(part.first, len(part.requests)) for part in parts] == [(0, 10_000), (10_000, 1)]
    assert [len(part.requests) for part in sliced(["a"] * 130, 128)] == [78, 52]
    monkeypatch.setattr(job_bodies, "MOST_BYTES", 100)
    parts = sliced(["x" * 30, "y" * 30, "z" * 300, "w"], 2)
    assert [len(part.requests) for part in parts] == [2, 1, 1]
    body = orjson.loads(parts[0].body(2))
    assert body["jobs"] == [{"prompt": "x" * 30}, {"prompt": "y" * 30}]
    assert (body["all_or_none"], body["samples"]) == (True, 2)
    assert sliced([], 1) == []


def test_an_error_of_the_gateway_names_the_request_as_the_caller_does() -> None:
    error = renamed(InvalidRequest("jobs[3].model", "x", "no", "unknown_model"), 10_000)
    assert (error.field, error.code) == ("requests[10003].model", "unknown_model")
    assert renamed(InvalidRequest("samples", 0, "no"), 5).field == "samples"


def refused(status: int, body: object = None, **headers: str) -> Exception:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal_of("the gateway", status, given, body)


def test_refusals_are_the_errors_of_the_library() -> None:
    facts = {"kind": "UnknownJob", "job_id": "x"}
    known = refused(404, {"error": {"message": "no", "headgate": facts}})
    assert isinstance(known, UnknownJob)
    key = refused(429, {"error": {"message": "slow", "code": "key_limit"}}, retry_after="7")
    assert isinstance(key, KeyRefused)
    assert (key.http_status, key.code, key.retry_after_s) == (429, "key_limit", 7)
    assert isinstance(refused(502), Unreachable)
    assert type(refused(404)) is Unfit
    assert type(refused(301, None, location="https://u:s3cret@h/")) is Unfit
    assert "s3cret" not in str(refused(301, None, location="https://u:s3cret@h/"))
    assert type(refused(413)) is InvalidRequest
    odd = refused(400, {"error": {"message": "newer", "headgate": {"kind": "OfTomorrow"}}})
    assert (type(odd), str(odd)) == (HeadgateError, "newer")
    assert type(refused(409, {"error": "text"})) is Unfit
    stopping = {"error": {"message": "stops", "headgate": {"kind": "CallRefused"}}}
    assert is_passing(503, stopping)
    away = {"error": {"message": "no", "headgate": {"kind": "Unreachable"}}}
    assert not is_passing(503, away)


def test_patience_ends_for_what_does_not_pass() -> None:
    pauses = Patience(0.5)
    away = Unreachable("the gateway", "refused", "try again")
    assert [pauses.pause_s(away) for _ in range(5)] == [0.5, 1, 2, 4, 4]
    pauses.reset()
    assert pauses.pause_s(KeyRefused(429, "key_limit", "slow", 9)) == 9
    assert pauses.pause_s(KeyRefused(429, "key_limit", "tomorrow", 80_000)) is None
    assert pauses.pause_s(KeyRefused(401, "invalid_api_key", "no")) is None
    assert pauses.pause_s(Unfit("the gateway", "x", "y")) is None
    assert pauses.pause_s(ValueError()) is None


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_are_taken_apart_however_they_are_cut(size: int) -> None:
    text = (
        b'id: 4-aa\nevent: delta\ndata: {"text":"one "}\n\n: ping\n\n'
        b'event: end\ndata: {"status": "succeeded"}\n\nevent: cut off\nda'
    )

    async def chunks() -> AsyncIterator[bytes]:
        for begin in range(0, len(text), size):
            yield text[begin : begin + size]

    assert [event async for event in events_in(chunks())] == [
        ReadEvent("delta", "4-aa", b'{"text":"one "}'),
        ReadEvent("end", "", b'{"status": "succeeded"}'),
    ]


class Restarting:
    """A gateway that starts anew again and again while a job waits: only its pings come."""

    def __init__(self) -> None:
        self.opened = 0

    @asynccontextmanager
    async def stream(self, *_: object) -> AsyncIterator[Restarting]:
        self.opened += 1
        yield self

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield b": ping\n\n"
        if self.opened == 5:
            yield b'id: 1\nevent: delta\ndata: {"text":"a"}\n\n'
            await asyncio.Event().wait()
        raise ConnectionResetError

    def lost(self, error: BaseException) -> Unreachable:
        return Unreachable("the gateway", str(error), "try again")

    def require_open(self) -> None:
        pass


@pytest.mark.parametrize("is_steady", [True, False])
async def test_each_loss_of_a_good_connection_has_a_minute_of_its_own(
    monkeypatch: pytest.MonkeyPatch, is_steady: bool
) -> None:
    monkeypatch.setattr(remote_answer, "STEADY_S", 0 if is_steady else 1000)
    monkeypatch.setattr(remote_answer, "PAUSE_S", 0.02)
    monkeypatch.setattr(patience, "GIVE_UP_AFTER_S", 0.03)
    gateway: Any = Restarting()
    reader = remote_answer.RemoteAnswer(gateway, JobEnds(gateway), "job", None, None, 0)
    reader.open()
    if is_steady:
        assert await reader.next() == "a"
    else:
        with pytest.raises(Unreachable):
            await reader.next()
    reader.close()
