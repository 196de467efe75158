"""One call of an ASGI app in the same process: its answer comes in pieces, as over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import httpx2
from starlette.types import ASGIApp, Message, Scope

HOST = "localhost"
"""The host that calls name: an open gateway serves this machine only."""

MOST_PIECES = 16
"""So many pieces of an answer wait for their reader; then the app waits, as for a slow socket."""


class AppCall:
    """A call from its request to the last piece of its answer. Use it in one event loop.

    `read_s`: how many seconds to wait for the head of the answer, and for each piece; None: no
    limit. The app learns that its caller has gone away from `leave`.
    """

    def __init__(self, app: ASGIApp, request: httpx2.Request, body: bytes) -> None:
        self._app, self._request, self._body = app, request, body
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout") or {}
        self._read_s = timeouts.get("read")
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue(MOST_PIECES)
        self._left = asyncio.Event()
        self._is_sent = False
        self._running: asyncio.Task[None] | None = None

    async def begin(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Make the call; return the status and the headers of its answer.

        Raises httpx2.ReadTimeout, and RemoteProtocolError if the app gives no answer.
        """
        self._running = asyncio.create_task(self._run(), name="headgate-call")
        try:
            head = await self._next()
        except BaseException:
            self.leave()
            raise
        if head is None:
            words = "the call ended without an answer"
            raise httpx2.RemoteProtocolError(words, request=self._request)
        return head["status"], list(head["headers"])

    async def piece(self) -> bytes | None:
        """Return the next piece of the body; None after the last."""
        message = await self._next()
        return None if message is None else message.get("body", b"")

    def leave(self) -> None:
        """Say that the caller wants no more. An answer under way is cancelled, as over HTTP."""
        self._left.set()
        while not self._messages.empty():
            self._messages.get_nowait()

    async def _next(self) -> Message | None:
        try:
            async with asyncio.timeout(self._read_s):
                return await self._messages.get()
        except TimeoutError:
            self.leave()
            words = f"no answer within {self._read_s:g} s"
            raise httpx2.ReadTimeout(words, request=self._request) from None

    async def _run(self) -> None:
        try:
            await self._app(_scope_of(self._request), self._receive, self._send)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await self._put(None)

    async def _receive(self) -> Message:
        if not self._is_sent:
            self._is_sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._put(message)

    async def _put(self, message: Message | None) -> None:
        """Hand the message to the reader; wait while it does not read, unless it has left."""
        if self._left.is_set():
            return
        put = asyncio.ensure_future(self._messages.put(message))
        left = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait((put, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
            left.cancel()


def _scope_of(request: httpx2.Request) -> Scope:
    url = request.url
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": "http",
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "server": (HOST, 80),
        "client": ("127.0.0.1", 0),
    }
    return scope
