"""Clients of Valkey that cost next to nothing: each sends, reads the reply, and sends again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import cast

import hiredis
import uvloop

from headgate.shared.broker.script import Command, Word

Next = Callable[[object], Command[object] | None]
"""The next command after this reply (None before the first); None ends the client."""


class _Client(asyncio.Protocol):
    def __init__(self, ask: Next, over: asyncio.Future[None]) -> None:
        self._ask = ask
        self._over = over
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class
        self._send(None)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                self._end(reply)
                return
            self._send(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _send(self, reply: object) -> None:
        command = self._ask(reply)
        if command is None:
            self._end(None)
        elif self._transport is not None:
            self._transport.write(packed(command.by_sha()))

    def _end(self, fault: Exception | None) -> None:
        if not self._over.done():
            self._over.set_exception(fault) if fault else self._over.set_result(None)
        if self._transport is not None:
            self._transport.close()


def packed(words: Iterable[Word]) -> bytes:
    """A command as it goes over the wire."""
    parts = [one if isinstance(one, bytes) else str(one).encode() for one in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(one), one) for one in parts)


def drive(port: int, clients: Iterable[Next]) -> None:
    """All clients have come to their end, side by side. The scripts are known to the server."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        ends = []
        for ask in clients:
            over: asyncio.Future[None] = loop.create_future()
            ends.append(over)
            await loop.create_connection(lambda a=ask, o=over: _Client(a, o), "127.0.0.1", port)  # type: ignore[misc]  # mypy cannot tell the type of a default
        await asyncio.gather(*ends)

    uvloop.run(run())
