"""One POST over a connection of the pool, byte by byte: what goes out, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from headgate.workers.errors import AttemptTimeout, ConnectionLost, InvalidOutput
from headgate.workers.providers.http import HttpPool
from tests.support.child import BUSY

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LONG_S = 30.0 * BUSY
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def pool_at(serve: Serve) -> AsyncIterator[tuple[HttpPool, list[None]]]:
    """Give a pool for a server, and a list with an item for each connection to it."""
    connections: list[None] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(None)
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        headers = {"Authorization": "Bearer k", "X-Odd": "ä"}
        pool = HttpPool(url, headers, endpoints=(), connections=10, vendor=False)
        try:
            yield pool, connections
        finally:
            await pool.close()


async def request_on(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    """Return the lines of the head and the body of the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    length = next(line for line in head if line.startswith("Content-Length: "))
    return head, await reader.readexactly(int(length.partition(": ")[2]))


@pytest.mark.parametrize("size", [2, 100_000])
async def test_each_request_has_its_head_and_its_length(size: int) -> None:
    seen = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await request_on(reader))
            writer.write(ANSWER)

    body = b"x" * size
    async with pool_at(serve) as (pool, connections):
        for _ in range(2):
            response = await pool.post("/chat?a=b", body, timeout_s=LONG_S)
            assert (response.status, bytes(response.content)) == (200, b"{}")
    assert len(connections) == 1
    assert seen[0] == seen[1]
    assert seen[0][1] == body
    first, *lines = seen[0][0]
    assert first == "POST /v1/chat?a=b HTTP/1.1"
    assert sorted(line.partition(":")[0] for line in lines) == [
        "Accept", "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "Host",
        "User-Agent", "X-Odd",
    ]  # fmt: skip
    assert {"Authorization: Bearer k", "Content-Type: application/json", "X-Odd: ä"} <= {*lines}


async def test_interim_answers_are_passed_over() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_on(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\n" + ANSWER)
        await reader.read()

    async with pool_at(serve) as (pool, _):
        assert (await pool.post("/chat", b"{}", timeout_s=LONG_S)).status == 200


async def test_a_connection_with_bytes_of_a_request_left_is_closed() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\n{}")
        await hung_up.wait()  # without reading the body

    hung_up = asyncio.Event()
    async with pool_at(serve) as (pool, connections):
        for _ in range(2):
            response = await pool.post("/chat", bytes(40_000_000), timeout_s=LONG_S)
            assert response.status == 413
        assert len(connections) == 2
        hung_up.set()


async def test_a_cancelled_call_closes_its_connection() -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_on(reader)
        arrived.set()
        assert await reader.read() == b""
        left.set()

    async with pool_at(serve) as (pool, _):
        call = asyncio.create_task(pool.post("/chat", b"{}", timeout_s=LONG_S))
        await asyncio.wait_for(arrived.wait(), LONG_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(left.wait(), LONG_S)


@pytest.mark.parametrize(
    ("sent", "error"),
    [(b"SSH-2.0-x\r\n\r\n", InvalidOutput), (b"", ConnectionLost), (ANSWER[:-1], ConnectionLost)],
)
async def test_what_is_no_answer_is_an_error_of_ours(sent: bytes, error: type[Exception]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_on(reader)
        writer.write(sent)

    async with pool_at(serve) as (pool, _):
        with pytest.raises(error):
            await pool.post("/chat", b"{}", timeout_s=LONG_S)


async def test_a_silence_between_two_bytes_ends_the_call() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_on(reader)
        writer.write(ANSWER[:-1])
        await reader.read()

    async with pool_at(serve) as (pool, _):
        with pytest.raises(AttemptTimeout, match=r"no byte of the answer for 0\.1 s"):
            await pool.post("/chat", b"{}", timeout_s=LONG_S, idle_s=0.1)
