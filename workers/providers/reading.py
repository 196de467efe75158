"""Reads the bytes of one answer: never more than may be held, and never for long at a time.

aiohttp unpacks compressed bodies in pieces of at most 256 kB, and only as they are read. So what is
counted here is the size of the answer unpacked, and a small body that unpacks to gigabytes is cut
off like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

import aiohttp

from headgate.workers.errors import ResponseTooLarge
from headgate.workers.provider import Room

MB = 1024 * 1024

MOST_BYTES = 128 * MB
"""The size of an answer where the settings say nothing else."""

MOST_OF_ERROR = 16 * MB
"""As much is read of a refusal. It may repeat the request, which has up to 10 MB."""

SLICE = 64 * 1024
"""So many bytes are taken before other jobs of the worker have a turn."""

PLAIN = 64 * 1024
"""Answers of fewer bytes are not looked at: what they hold takes little, however it is nested."""

NODE, ITEM = 64, 24
"""About the memory of a list or an object of JSON, and of a number in it, in bytes."""

HEAVIEST = 8
"""How many times its most bytes an answer may take in memory. JSON of empty lists takes 20."""

LINGER_S = 0.05
"""How long the last bytes are waited for after the end of a stream."""


class StreamSink(Protocol):
    """Takes the bytes of a stream. `size`: about how many bytes it holds in memory."""

    @property
    def ended(self) -> bool:
        """True if nothing of value is lost when the connection breaks now."""

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it holds."""

    def feed(self, chunk: bytes) -> bool:
        """Take a piece; return True once nothing more is expected."""


def weight(json: bytes) -> int:
    """Return about how many bytes of memory this piece of JSON takes, once it is read."""
    return len(json) + NODE * (json.count(b"[") + json.count(b"{")) + ITEM * json.count(b",")


class Reading:
    """Reads one answer of at most `most_bytes`. `limit` is the time limit of its call."""

    def __init__(
        self, response: aiohttp.ClientResponse, most_bytes: int, limit: asyncio.Timeout,
        room: Room | None,
    ) -> None:  # fmt: skip
        self._response = response
        self._most_bytes = most_bytes
        self._limit = limit
        self._room = room
        self._since_pause = 0

    async def whole(self) -> bytes | bytearray:
        """Return the whole body; of a refusal as much as is needed to understand it.

        Raises ResponseTooLarge for an answer above the limit.
        """
        response, content, heap = self._response, bytearray(), 0
        refused = response.status != 200
        most_bytes = min(self._most_bytes, MOST_OF_ERROR) if refused else self._most_bytes
        if not refused and (response.content_length or 0) > most_bytes:
            raise self._too_large()
        while chunk := await response.content.readany():
            content += chunk
            heap += len(chunk) if len(content) <= PLAIN else weight(chunk)
            too_large = len(content) > most_bytes
            if too_large or heap > HEAVIEST * most_bytes:
                if not refused:
                    raise self._too_large(too_large)
                response.close()
                break
            await self._hold(heap)
            await self._pause(len(chunk))
        return content

    async def pour(self, into: StreamSink) -> None:
        """Feed the stream to the sink until it ends or the sink expects no more.

        Raises ResponseTooLarge for an answer above the limit.
        """
        content, taken = self._response.content, 0
        try:
            while chunk := await content.readany():
                for piece in _slices(chunk):
                    if into.feed(piece):
                        return await self._linger()
                    taken += len(piece)
                    await self._pause(len(piece))
                too_large = taken > self._most_bytes
                if too_large or into.size > HEAVIEST * self._most_bytes:
                    if into.ended:
                        return None
                    raise self._too_large(too_large)
                await self._hold(into.size)
        except (aiohttp.ClientError, OSError):
            if not into.ended:
                raise
        return None

    async def _linger(self) -> None:
        """Read the last bytes, so that the connection can be used again. Mostly they have come."""
        content, read = self._response.content, 0
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while read < SLICE and (chunk := await content.readany()):
                    read += len(chunk)

    async def _hold(self, size: int) -> None:
        """Count what is held, and wait while others leave no room. The time limit waits, too."""
        if self._room is None or self._room.hold(size):
            return
        loop = asyncio.get_running_loop()
        left_s = (self._limit.when() or 0) - loop.time()
        self._limit.reschedule(None)
        await self._room.wait()
        self._limit.reschedule(loop.time() + left_s)

    async def _pause(self, size: int) -> None:
        """Let other jobs have a turn once in a while: a fast provider never makes us wait."""
        self._since_pause += size
        if self._since_pause >= SLICE:
            self._since_pause = 0
            await asyncio.sleep(0)

    def _too_large(self, by_bytes: bool = True) -> ResponseTooLarge:
        """Close the connection, and return the error."""
        self._response.close()
        most_mb = self._most_bytes / MB
        what = f"is larger than {most_mb:g} MB"
        if not by_bytes:
            what = f"would take more than {HEAVIEST * most_mb:g} MB of memory"
        headers = self._response.headers
        return ResponseTooLarge(
            f"the answer {what}, so it was not read to its end; ask for less (max_tokens, n, "
            "inputs), or raise HEADGATE_RESPONSE_MB",
            http_status=self._response.status,
            billed=None,
            request_id=headers.get("x-request-id") or headers.get("request-id"),
        )


def _slices(chunk: bytes) -> Iterator[bytes]:
    if len(chunk) <= SLICE:
        yield chunk
        return
    for start in range(0, len(chunk), SLICE):
        yield chunk[start : start + SLICE]
