"""A vendor on a loopback port that answers byte by byte, as a test's script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

Script = Callable[["Visit"], Awaitable[None]]


@dataclass
class Visit:
    """One request at the vendor, with the means to answer it byte by byte."""

    path: str
    headers: dict[str, str]
    body: Any
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, body: object, status: int = 200, **headers: str) -> None:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*head, "", ""]).encode() + content)

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()


@dataclass
class Vendor:
    """A vendor on a loopback port: keeps what it was sent, and whether its caller hung up."""

    script: Script
    visits: list[Visit] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    port: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                path = first.split(" ")[1]
                visit = Visit(path, headers, orjson.loads(body), reader, writer)
                self.visits.append(visit)
                self.arrived.set()
                await self.script(visit)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def vendor(script: Script) -> AsyncIterator[Vendor]:
    standing = Vendor(script)
    server = await asyncio.start_server(standing, "127.0.0.1", 0, backlog=1024)
    standing.port = server.sockets[0].getsockname()[1]
    try:
        yield standing
    finally:
        server.close()
