"""What strangers and broken programs send: each is refused, and the gateway goes on."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.gateway import Answered, Gateway, House, Wire, ask, house, raw, request_bytes
from tests.support.memory import watched
from tests.support.servers import Simulator, ValkeyServer

SECRET = "violet-harbour-7261"  # noqa: S105  no password
"""Stands in all that is sent here; no log may have it."""

CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
COUNT, JOBS = "/v1/messages/count_tokens", "/v1/jobs"
DEEP = 100_000
MB = 1_000_000


def chat(text: str = SECRET, /, **fields: object) -> dict[str, object]:
    """A good body, at each of the addresses but that of embeddings."""
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "max_tokens": 20, "messages": messages, **fields}


@pytest.fixture
def env(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
    }  # fmt: skip


@pytest.fixture
def gateway(env: dict[str, str], tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with no worker: nothing here may become a job."""
    assert headgate(["db", "upgrade"], env).code == 0
    with Gateway(env, tmp_path) as running:
        yield running
        assert ask(running, "/health/live").status == 200
        assert SECRET not in running.log()


@pytest.fixture
def strict(env: dict[str, str], tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that waits 2 s for headers, and 2 s for a body."""
    assert headgate(["db", "upgrade"], env).code == 0
    with Gateway({**env, "HEADGATE_GATEWAY_BODY_S": "2"}, tmp_path) as running:
        yield running
        assert ask(running, "/health/live").status == 200
        assert SECRET not in running.log()


def is_refused(answered: Answered, path: str, status: int) -> None:
    """The answer has this status, and says why in the form of the address's dialect."""
    assert answered.status == status, (answered.status, answered.body[:300])
    assert answered.headers["content-type"] == "application/json"
    assert answered.headers["x-request-id"].startswith("req_")
    said = answered.json
    if path.startswith(MESSAGES):
        assert said["type"] == "error"
        assert set(said["error"]) == {"type", "message"}
        assert said["request_id"] == answered.headers["x-request-id"]
    else:
        assert set(said) == {"error"}
        facts = {"headgate"} if path == JOBS else set()
        assert set(said["error"]) == {"message", "type", "param", "code", *facts}
    assert said["error"]["message"]


def no_json() -> list[bytes]:
    """Bodies that are no JSON objects."""
    good = json.dumps(chat()).encode()
    closed = b"[" * DEEP + b"]" * DEEP
    return [
        b"", b" ", good[:-1], good + b"}", good + good, b"\xef\xbb\xbf" + good,
        json.dumps(chat()).encode("utf-16"), good.replace(b"violet", b"\xff\xfe"),
        good.replace(b"violet", b"\\ud800"), good.replace(b"violet", b"\x00"),
        b'{"' + SECRET.encode() + b'":' * DEEP, closed,
        good[:-1] + b',"metadata":' + closed + b"}",
        good[:-1] + b',"temperature":NaN}', good[:-1] + b',"top_p":-Infinity}',
        good[:-1] + b',"seed":' + b"9" * 400 + b"}",
        f'["{SECRET}"]'.encode(), f'"{SECRET}"'.encode(), b"7", b"null", b"true",
    ]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS, MESSAGES, COUNT, JOBS])
def test_a_body_that_is_no_json_object_is_refused_and_the_connection_goes_on(
    path: str, gateway: Gateway
) -> None:
    with Wire(gateway) as wire:
        for body in no_json():
            wire.send(request_bytes(path, body))
            is_refused(wire.answer(), path, 400)
        wire.send(request_bytes("/health/live", method="GET"))
        assert wire.answer().status == 200


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_body_of_another_kind_is_refused_by_its_name(path: str, gateway: Gateway) -> None:
    good = json.dumps(chat()).encode()
    with Wire(gateway) as wire:
        for kind in ("text/plain", "multipart/form-data; boundary=x", "application/jsonp", "json"):
            wire.send(request_bytes(path, good, content_type=kind))
            refused = wire.answer()
            is_refused(refused, path, 415)
            assert kind.partition(";")[0] in refused.body.decode()
        for encoding in ("gzip", "br", "zstd"):
            wire.send(request_bytes(path, gzip.compress(good), content_encoding=encoding))
            refused = wire.answer()
            is_refused(refused, path, 415)
            assert encoding in refused.body.decode()
        wire.send(request_bytes(path, gzip.compress(good)))
        is_refused(wire.answer(), path, 400)


def test_a_field_of_the_wrong_kind_is_refused_by_its_name(gateway: Gateway) -> None:
    """Numbers with 400 digits, nested values where a text belongs, and the like."""
    deep: object = SECRET
    for _ in range(900):
        deep = [deep]
    wrong: list[tuple[str, object]] = [
        ("model", 10**30), ("model", ["gpt-4o-mini"]), ("model", "\x00"), ("model", "x" * 5000),
        ("messages", SECRET), ("messages", [SECRET]), ("messages", {"messages": "user"}),
        ("messages", [{"role": "user", "content": 7}]), ("messages", [None]),
        ("max_tokens", 10**30), ("max_tokens", -1), ("max_tokens", 1.5), ("max_tokens", "20"),
        ("temperature", "warm"), ("stream", 1), ("stop", deep),
        ("headgate", [SECRET]), ("headgate", {"deadline_s": "soon"}),
        ("headgate", {"deadline_s": 0}), ("headgate", {"deadline_s": 10**30}),
        ("headgate", {"metadata": deep}), ("headgate", {"priority": {"a": deep}}),
        ("headgate", {"user": "\x00"}), ("headgate", {"tenant": ""}),
        ("headgate", {"idempotency_key": 7}), ("headgate", {SECRET: 1}),
    ]  # fmt: skip
    passed = []
    for path in (CHAT, MESSAGES):
        with Wire(gateway) as wire:
            for field, value in wrong:
                wire.send(request_bytes(path, {**chat(), field: value}))
                refused = wire.answer()
                name = next(iter(value)) if isinstance(value, dict) else field
                if refused.status not in (400, 404) or name not in refused.body.decode():
                    passed.append((path, field, str(value)[:40], refused.status, refused.body))
                else:
                    is_refused(refused, path, refused.status)
    assert passed == []


def test_odd_numbers_in_headers_and_addresses_are_refused_or_ignored(gateway: Gateway) -> None:
    digits = "9" * 5000  # more than Python makes a number of
    for name, value in (
        ("x_headgate_deadline_s", "nan"), ("x_headgate_deadline_s", "-inf"),
        ("x_headgate_deadline_s", digits), ("x_headgate_deadline_s", "-1"),
        ("x_headgate_deadline_s", SECRET), ("x_headgate_detach", SECRET),
        ("x_headgate_priority", SECRET), ("x_headgate_cache", SECRET),
        ("x_headgate_metadata", SECRET), ("x_headgate_metadata", "[" * 5000),
        ("x_headgate_metadata", '{"a": NaN}'), ("x_headgate_on_limit", SECRET),
        ("x_headgate_fallback", SECRET), ("x_headgate_prefer", SECRET),
        ("x_headgate_user", "\x80\xff" * 500), ("x_headgate_tenant", "\xe9" * 500),
        ("idempotency_key", "\xff" * 5000), ("last_event_id", digits), ("last_event_id", "-1"),
    ):  # fmt: skip
        for path in (CHAT, MESSAGES):
            with Wire(gateway, request_bytes(path, chat(), **{name: value})) as wire:
                refused = wire.answer()
                assert refused.status in (400, 404), (name, value[:9], refused.status, refused.body)
                is_refused(refused, path, refused.status)
    for path in (f"limit={digits}", "limit=0", "limit=%00", "after_id=%ff", "before_id=" + digits):
        bad = ask(gateway, f"/v1/models?{path}", anthropic_version="2023-06-01")
        assert (bad.status, bad.json["type"]) == (400, "error"), (path, bad.body)
    with Wire(gateway, request_bytes(CHAT + "?starting_after=" + digits, chat())) as wire:
        is_refused(wire.answer(), CHAT, 400)


def test_addresses_and_methods_that_are_not_there(gateway: Gateway) -> None:
    for method, path, status in (
        ("GET", "/v1/chat/completions", 405), ("DELETE", "/v1/models", 405),
        ("PUT", "/v1/messages", 405), ("GET", f"/v1/{SECRET}", 404), ("POST", "/", 404),
        ("GET", "/v1/messages/none", 404), ("GET", "/v1/models/%00%ff%ed%a0%80", 404),
        ("GET", f"/{SECRET}" * 500, 404), ("GET", "//v1/models/..", 404),
        ("TRACE", "/v1/models", 405), ("PATCH", "/v1/embeddings", 405),
    ):  # fmt: skip
        with Wire(gateway, request_bytes(path, method=method)) as wire:
            refused = wire.answer()
            is_refused(refused, path, status)
            if status == 405:
                assert refused.headers["allow"]
            wire.send(request_bytes("/health/live", method="GET"))
            assert wire.answer().status == 200
    asked = ask(gateway, "/v1/none", anthropic_version="2023-06-01")
    is_refused(asked, MESSAGES, 404)
    head = raw(gateway, request_bytes("/health/live", method="HEAD"))
    assert head.recv(4096).endswith(b"\r\n\r\n")
    head.close()


def test_a_body_of_a_gigabyte_is_refused_and_takes_no_memory(gateway: Gateway) -> None:
    """Whether its length is given or not. The rest is thrown away for two seconds at most."""
    piece = SECRET.encode() * 50_000
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    whole = 1_000 * MB
    chunked = request_bytes(CHAT, content_length=None, transfer_encoding="chunked")
    ask(gateway, CHAT, b"{")
    with watched(gateway.pid) as memory:
        for head, part in (
            (request_bytes(CHAT, content_length=str(whole)), piece),
            (chunked, chunk),
            (request_bytes(MESSAGES, content_length="9" * 30), piece),
        ):
            with Wire(gateway, head) as wire:
                sent = 0
                with suppress(ConnectionError):
                    while sent < whole:
                        wire.send(part)
                        sent += len(part)
                if b"9999" not in head:
                    assert sent > 5 * MB
                    is_refused(wire.answer(), CHAT, 413)
        for path in (CHAT, MESSAGES):
            with Wire(gateway, request_bytes(path, b"7" * (10 * MB + 1))) as wire:
                is_refused(wire.answer(), path, 413)
                wire.send(request_bytes("/health/live", method="GET"))
                assert wire.answer().status == 200
    assert memory.grown_mb < 60


def test_who_waits_with_the_body_until_it_is_wanted_need_not_send_a_large_one(
    gateway: Gateway,
) -> None:
    waiting = {"expect": "100-continue"}
    with Wire(gateway) as wire:
        wire.send(request_bytes(CHAT, content_length="1000000000", **waiting))
        is_refused(wire.answer(), CHAT, 413)
        assert wire.is_closed()
    with Wire(gateway) as wire:
        wire.send(request_bytes(CHAT, content_length="2", **waiting))
        assert wire.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        is_refused(wire.send(b"[]").answer(), CHAT, 400)


def test_headers_without_end_are_refused_and_the_connection_closed(gateway: Gateway) -> None:
    line = f"x-more: {SECRET}\r\n"
    for path, head in (
        (MESSAGES, request_bytes(MESSAGES, chat(), x_long="a" * 70_000)),
        (MESSAGES, f"POST {MESSAGES} HTTP/1.1\r\n".encode() + line.encode() * 10_000),
        (CHAT, f"GET /{'a' * 70_000} HTTP/1.1\r\nhost: a\r\n\r\n".encode()),
        (CHAT, f"GET /{SECRET * 20_000}".encode()),
    ):
        with Wire(gateway) as wire:
            with suppress(ConnectionError):
                wire.send(head)
            is_refused(wire.answer(), path, 431)
            assert wire.is_closed()
    with Wire(gateway, request_bytes(CHAT, b"", x_long="a" * 30_000)) as wire:
        is_refused(wire.answer(), CHAT, 400)


def test_slow_headers_and_slow_bodies_are_given_up(strict: Gateway) -> None:
    """Also those that send a byte now and then, and those that send nothing at all."""
    whole = request_bytes(MESSAGES, chat())
    half = whole[:-20]
    for start, path in (
        (b"", CHAT), (f"POST {CHAT} HTTP/1.1\r\nhost".encode(), CHAT),
        (f"POST {MESSAGES} HTTP/1.1\r\nanthropic-version: 1\r\nx: ".encode(), MESSAGES),
        (half, MESSAGES),
    ):  # fmt: skip
        began = time.monotonic()
        with Wire(strict, start) as wire:
            wire.socket.settimeout(0.2)
            sent = b""
            while not sent and time.monotonic() - began < 20 * BUSY:
                with suppress(ConnectionError):
                    wire.send(b"a" if start else b"")
                with suppress(TimeoutError):
                    sent = wire.socket.recv(1, 2)  # MSG_PEEK
            wire.socket.settimeout(20 * BUSY)
            refused = wire.answer()
            is_refused(refused, path, 408)
            assert refused.headers["connection"] == "close"
            assert wire.is_closed()
        assert time.monotonic() - began >= 1.9


def test_a_connection_without_a_request_is_closed_in_time(strict: Gateway) -> None:
    """Also one whose refused body never ends."""
    with Wire(strict, request_bytes("/health/live", method="GET", content_length="100")) as wire:
        assert wire.answer().status == 200
        with suppress(ConnectionError):
            for _ in range(100 * BUSY):
                wire.send(b"a")
                time.sleep(0.05)
        assert wire.is_closed()


def test_requests_in_one_piece_are_answered_in_their_order(gateway: Gateway) -> None:
    live = request_bytes("/health/live", method="GET")
    models = request_bytes("/v1/models", method="GET")
    with Wire(gateway, models + request_bytes(CHAT, b"{") + live + models + live) as wire:
        assert [wire.answer().status for _ in range(5)] == [200, 400, 200, 200, 200]
        wire.send(live + b"\r\n\r\n" + b"NO HTTP\r\n\r\n" + live)
        assert wire.answer().status == 200
        with suppress(ConnectionError):
            assert wire.answer().status == 400
        assert wire.is_closed()
    upgrade = request_bytes(CHAT, b"{", connection="upgrade", upgrade="h2c")
    with Wire(gateway, upgrade) as wire:
        assert wire.answer().status == 400
        assert wire.send(live).answer().status == 200


def test_bytes_that_are_no_http_are_refused_and_the_connection_closed(gateway: Gateway) -> None:
    good = json.dumps(chat()).encode()
    chunked = request_bytes(CHAT, content_length=None, transfer_encoding="chunked")
    for data in (
        chunked + b"zz\r\n" + good, chunked + b"5\r\nabcdefgh\r\n", chunked + b"-1\r\n",
        chunked + b"f" * 40 + b"\r\n",
        request_bytes(CHAT, good, transfer_encoding="chunked"),
        request_bytes(CHAT, good, content_length="-5"),
        request_bytes(CHAT, good).replace(b"host", b"content-length: 7\r\nhost"),
        request_bytes(CHAT, good).replace(b"host: ", b"host\x00: "),
        request_bytes(CHAT, good, x_strange="a\x00b"), request_bytes(CHAT, good, x_strange="a\nb"),
        request_bytes("/v1/\xff", good), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        f"{SECRET} / HTTP/1.1\r\n\r\n".encode(), b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 4096,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    ):  # fmt: skip
        with Wire(gateway, data) as wire:
            refused = wire.answer()
            assert refused.status in (400, 404, 405), (data[:80], refused.status)
            is_refused(refused, CHAT, refused.status)
            if refused.status == 400:
                assert wire.is_closed(), data[:80]


def test_header_values_with_strange_bytes_pass_or_are_refused(gateway: Gateway) -> None:
    for name in ("authorization", "x_api_key", "user_agent", "anthropic_beta", "accept", "origin"):
        strange = request_bytes("/v1/models", method="GET", **{name: f"{SECRET} \x80\xff\xfe"})
        with Wire(gateway, strange) as wire:
            assert wire.answer().status in (200, 401, 403), name


@pytest.fixture
def at(
    valkey: ValkeyServer,
    database_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[House]:
    simulator = simulator_factory("--latency-ms", "20")
    with house(valkey, database_url, simulator, tmp_path) as found:
        yield found
        assert SECRET not in found.gateway.log()


def test_odd_but_legal_bodies_are_answered(at: House) -> None:
    """NUL, control characters, keys that come twice, and values as deep as JSON libraries write."""
    deep: object = 1
    for _ in range(100):
        deep = {"a": [deep]}
    odd = f"{SECRET} \x00 \x1b[2J \x7f \u202e \ufeff \U0010ffff \\ \" '"
    schema = {"name": "f", "parameters": {"type": "object", "x": deep}}
    bodies: list[object] = [
        chat(odd),
        chat(metadata={"a\x00b": odd}),
        chat(tools=[{"type": "function", "function": schema}]),
        json.dumps(chat()).encode().replace(b'"model"', b'"model": "none", "model"'),
        chat(seed=2**63 - 1),
        chat("x" * 300_000),
    ]
    for body in bodies:
        answered = ask(at.gateway, CHAT, body)
        assert answered.status == 200, answered.body[:300]
        assert answered.json["choices"]
    answered = ask(at.gateway, MESSAGES, chat(odd))
    assert answered.status == 200, answered.body[:300]
    answered = ask(at.gateway, CHAT, chat(), x_headgate_user="Zo\xeb", idempotency_key="\xe9 7")
    assert answered.status == 200, answered.body[:300]


def test_a_caller_that_closes_its_half_of_the_connection_has_gone_away(at: House) -> None:
    """As with most servers: who cannot be told from who has ended is not worth the money."""
    body = chat("[[fault:slow:ms=120000]]", headgate={"cache": "off", "share": False})
    with Wire(at.gateway, request_bytes(CHAT, body)) as wire:
        wait_until(lambda: at.simulator.stats()["requests"] > 0, 30, "the call")
        wire.socket.shutdown(1)
        assert wire.is_closed()
    wait_until(lambda: at.statuses() == ["cancelled"], 30, "the job to be cancelled")
    with Wire(at.gateway, request_bytes(CHAT, chat())[:-30]) as wire:
        wire.socket.shutdown(1)
        assert wire.is_closed()
    assert len(at.statuses()) == 1
