"""Callers over HTTP/1.1 that cost next to nothing, so that a bench measures those who answer.

A connection asks one thing at a time and is kept. A reply ends by its Content-Length, or with its
last chunk.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Self, TypeVar, cast
from urllib.parse import urlsplit

import orjson

END_OF_HEAD, LENGTH, LAST_CHUNK = b"\r\n\r\n", b"content-length:", b"0\r\n\r\n"
WORD = b"word "
"""With the first of these the answer of the bench's provider has begun."""

T = TypeVar("T")

_numbers = itertools.count()
_mark = f"{time.time_ns():x}"


@dataclass(frozen=True, slots=True)
class Reply:
    """When a request was sent, the first word of the answer came, and all of it; in seconds."""

    status: int
    asked: float
    first: float
    ended: float


def prompt() -> str:
    """Return a prompt of some 80 tokens, equal to no other one."""
    return f"{next(_numbers)} of {_mark} " + "x" * 300


def body(*, stream: bool = False) -> bytes:
    """Return a chat completion's body with a prompt of its own."""
    asked = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": prompt()}],
        "max_tokens": 50,
    }
    return orjson.dumps(asked | {"stream": True} if stream else asked)


class Connection(asyncio.Protocol):
    """One connection to a server."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[Reply] | None = None
        self.on_first: Callable[[], object] | None = None
        self._asked = self._first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class

    def ask(self, asked: bytes, since: float | None = None) -> asyncio.Future[Reply]:
        """Send the body; return what will be the reply. `since`: when it was due to be sent."""
        assert self._transport is not None
        assert self._reply is None
        self._received.clear()
        self._asked, self._first = since or time.perf_counter(), 0.0
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(self._head % len(asked) + asked)
        return self._reply

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._first and WORD in received:
            self._first = time.perf_counter()
            if self.on_first is not None:
                self.on_first()
        end = received.find(END_OF_HEAD)
        if end < 0 or self._reply is None:
            return
        head = bytes(received[:end]).lower()
        at = head.find(LENGTH)
        if at >= 0:
            length = int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0])
            if len(received) < end + len(END_OF_HEAD) + length:
                return
        elif not received.endswith(LAST_CHUNK):
            if len(received) > 4096 and self._first:
                del received[end + len(END_OF_HEAD) : -64]
            return
        now = time.perf_counter()
        reply, self._reply = self._reply, None
        if not reply.done():
            reply.set_result(Reply(int(head[9:12]), self._asked, self._first or now, now))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError("the server closed the connection"))

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


class Callers:
    """Connections to one address, opened as they are needed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        head = (
            f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\naccept: application/json\r\n"
            "content-type: application/json\r\nauthorization: Bearer sk-bench\r\n"
            "user-agent: OpenAI/Python 3.57.0\r\nx-stainless-lang: python\r\n"
            "x-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n"
        )
        self._head = head.encode() + b"content-length: %d\r\n\r\n"
        self._free: list[Connection] = []
        self._all: list[Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()
        await asyncio.sleep(0)

    async def connection(self) -> Connection:
        """Return a connection that is free."""
        if self._free:
            return self._free.pop()
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: Connection(self._head), self._host, self._port
        )
        self._all.append(made)
        return made

    async def call(self, *, stream: bool = False, since: float | None = None) -> Reply:
        """Make one call; raise AssertionError if it is refused."""
        connection = await self.connection()
        reply = await connection.ask(body(stream=stream), since)
        self._free.append(connection)
        assert reply.status == 200, f"the answer is {reply.status}"
        return reply

    async def at_once(self, callers: int, calls: int) -> float:
        """Make so many calls, so many at once; return calls per second."""
        left = itertools.repeat(None, calls)

        async def ask() -> None:
            for _ in left:
                await self.call()

        for connection in [await self.connection() for _ in range(callers)]:
            self._free.append(connection)
        began = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(callers)))
        return calls / (time.perf_counter() - began)

    async def paced(self, per_s: float, calls: int, *, stream: bool = False) -> list[Reply]:
        """Make so many calls, so many each second, however long the answers take."""
        return await paced(per_s, calls, lambda due: self.call(stream=stream, since=due))


async def paced(
    per_s: float, calls: int, call: Callable[[float], Coroutine[None, None, T]]
) -> list[T]:
    """Begin a call at each of so many moments, and return all results."""
    began, tasks = time.perf_counter(), []
    for number in range(calls):
        due = began + number / per_s
        if (left := due - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        tasks.append(asyncio.ensure_future(call(due)))
    return await asyncio.gather(*tasks)
