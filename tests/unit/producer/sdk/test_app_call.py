"""A call of an app in the same process behaves as one over HTTP: pieces, waits, departures."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from headgate.producer.sdk.app_call import MOST_PIECES, AppCall

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}


def call_of(app: Any, read_s: float | None = None, body: bytes = b"{}") -> AppCall:
    """Return a call that has not begun."""
    request = httpx2.Request("POST", "http://localhost/v1/x?a=1", content=body)
    request.extensions["timeout"] = {"read": read_s}
    return AppCall(app, request, body)


async def test_the_app_gets_the_request_and_its_answer_comes_as_it_is_made() -> None:
    seen: dict[str, Any] = {}
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope, body=(await receive())["body"])
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    call = call_of(app, body=b'{"a": 1}')
    assert await call.begin() == (200, [(b"x-a", b"1")])
    assert await call.piece() == b"one"
    go_on.set()
    assert [await call.piece(), await call.piece()] == [b"two", None]
    assert (seen["method"], seen["path"], seen["query_string"]) == ("POST", "/v1/x", b"a=1")
    assert (seen["body"], dict(seen["headers"])[b"host"]) == (b'{"a": 1}', b"localhost")


async def test_a_reader_that_leaves_is_a_disconnect_and_blocks_nobody() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(HEAD)
        for _ in range(3 * MOST_PIECES):  # more than fits: it waits for its reader
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        told.append((await receive())["type"])

    call = call_of(app)
    await call.begin()
    assert await call.piece() == b"x"
    call.leave()
    running = call._running
    assert running is not None
    await running
    assert told == ["http.disconnect"]


async def test_a_wait_that_is_too_long_and_a_cancelled_one_leave() -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        gone.set()

    with pytest.raises(httpx2.ReadTimeout, match=r"no answer within 0\.01 s"):
        await call_of(app, read_s=0.01).begin()
    await gone.wait()
    gone.clear()
    waiting = asyncio.create_task(call_of(app).begin())
    await asyncio.sleep(0)
    waiting.cancel()
    await gone.wait()


async def test_an_app_without_an_answer_is_a_broken_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    with pytest.raises(httpx2.RemoteProtocolError, match="without an answer"):
        await call_of(app).begin()
