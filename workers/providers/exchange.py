"""One POST and its answer, over a connection of aiohttp's pool.

`ClientSession.post` makes objects for a request, a response, its headers, cookies and timers, and a
task that writes: 127 us of CPU a call, where an exchange takes 58. All that comes from outside goes
through aiohttp all the same: connections, TLS, the parser and its limits, decompression.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

CONNECT_TIMEOUT_S = 5.0

READ_BUFFER_BYTES = 64 * 1024
"""aiohttp keeps up to twice as much for a call that does not read on; its default is 256 kB."""

JOINED_BYTES = 16 * 1024
"""A body of so many bytes is copied behind its head; a larger one is sent as it is."""

_CONNECT = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S)


class Incoming(Protocol):
    """An answer whose head has come; an Exchange is one, and so is aiohttp's own response."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content(self) -> aiohttp.StreamReader: ...
    @property
    def content_length(self) -> int | None: ...
    def close(self) -> None:
        """Close the connection, so that the vendor learns that nobody reads on."""


class Target:
    """What all POSTs to one URL share. Make it on the loop of the connector."""

    def __init__(
        self, connector: aiohttp.BaseConnector, url: URL, headers: Mapping[str, str]
    ) -> None:
        self.connector = connector
        self.url = str(url)
        # It names the connection and has all headers; it is never sent itself.
        self.request = aiohttp.ClientRequest("POST", url, headers=headers, data=b"{}")
        self._head = _head(self.request)

    def message(self, body: bytes) -> list[bytes]:
        """Return the request with this body, as the pieces to write."""
        head = b"%b%d\r\n\r\n" % (self._head, len(body))
        return [head + body] if len(body) <= JOINED_BYTES else [head, body]


def _head(request: aiohttp.ClientRequest) -> bytes:
    """Return the head of the request up to its length; raise ValueError for a broken header."""
    lines = [f"POST {request.url.raw_path_qs} HTTP/1.1"]
    lines += [f"{k}: {v}" for k, v in request.headers.items() if k.lower() != "content-length"]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header has a line break")
    return "\r\n".join([*lines, "Content-Length: "]).encode()


class Exchange:
    """Sends the request when it is entered, and is then its answer.

    At its end the connection goes back to the pool, or is closed if anything is left on it.
    `idle_s`: the longest time between two bytes; None: no limit. Raises what `ClientSession.post`
    raises, and HttpProcessingError for an answer that is not HTTP.
    """

    status: int
    headers: Mapping[str, str]
    content: aiohttp.StreamReader
    _connection: Connection

    def __init__(self, target: Target, body: bytes, idle_s: float | None) -> None:
        self._target = target
        self._body = body
        self._idle_s = idle_s

    async def __aenter__(self) -> Self:
        target = self._target
        try:
            self._connection = await target.connector.connect(target.request, [], _CONNECT)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {target.url}") from error
        try:
            await self._send()
        except BaseException:
            self._connection.close()
            raise
        return self

    async def _send(self) -> None:
        protocol = self._connection.protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection is closed")
        protocol.set_response_params(
            read_until_eof=True, read_timeout=self._idle_s, read_bufsize=READ_BUFFER_BYTES
        )
        try:
            protocol.transport.writelines(self._target.message(self._body))
        except RuntimeError as error:  # uvloop's, for a connection that was closed just now
            raise aiohttp.ClientConnectionResetError("the connection is closed") from error
        protocol.start_timeout()
        while True:
            head, self.content = await protocol.read()
            if not 100 <= head.code < 200 or head.code == 101:
                break
        self.status, self.headers = head.code, head.headers

    @property
    def content_length(self) -> int | None:
        """Return the length that the answer names, of its body as it travels."""
        length = self.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            self._connection.close()  # answered before the request was read
        else:
            self._connection.release()
