"""A provider that costs next to nothing, so that a bench measures those who ask it.

`python -m tests.bench.load_provider LATENCY_MS URL_FILE PARENT [GAP_MS]` answers each POST after
LATENCY_MS, always with the same completion; a stream has its first piece then, and another one each
GAP_MS. It speaks just enough HTTP for the SDKs: bodies with a Content-Length, connections that are
kept. It ends with the process PARENT.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import orjson
import uvloop

from tests import ROOT
from tests.support.child import ChildProcess, die_with_parent

END_OF_HEAD, LENGTH = b"\r\n\r\n", b"content-length:"
STREAMS = (b'"stream":true', b'"stream": true')
PIECES = 50

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-load",
    "object": "chat.completion",
    "created": 1_795_000_000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "word " * 50, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 80,
        "completion_tokens": 50,
        "total_tokens": 130,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_load",
}


def reply() -> bytes:
    """Return the whole HTTP response, the same for every request."""
    body = orjson.dumps(ANSWER)
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_load\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    return head + body


def stream() -> list[bytes]:
    """Return the parts of a streamed response: the first one has its head and the first word."""
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_load\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    parts = [_chunk(opening) + _chunk({"content": "word "})]
    parts += [_chunk({"content": "word "}) for _ in range(PIECES - 1)]
    parts[-1] += _chunk({}, end="stop")
    parts[-1] += _event({**_CHUNK, "choices": [], "usage": ANSWER["usage"]}) + b"data: [DONE]\n\n"
    framed = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
    return [head + framed[0], *framed[1:-1], framed[-1] + b"0\r\n\r\n"]


_CHUNK = {**ANSWER, "object": "chat.completion.chunk", "usage": None}


def _chunk(delta: dict[str, Any], end: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}
    return _event({**_CHUNK, "choices": [choice]})


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


class _Connection(asyncio.Protocol):
    """Reads requests one after the other, and answers each after the latency."""

    def __init__(self, latency_s: float, gap_s: float, whole: bytes, parts: list[bytes]) -> None:
        self._latency_s, self._gap_s = latency_s, gap_s
        self._whole, self._parts = whole, parts
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(END_OF_HEAD)) >= 0:
            head = bytes(self._received[:end]).lower()
            at = head.find(LENGTH)
            length = int(head[at + len(LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            size = end + len(END_OF_HEAD) + length
            if len(self._received) < size:
                return
            body = bytes(self._received[end:size])
            del self._received[:size]
            streams = any(word in body for word in STREAMS)
            self._loop.call_later(self._latency_s, self._stream if streams else self._answer)

    def _answer(self) -> None:
        if self._transport is not None:
            self._transport.write(self._whole)

    def _stream(self, number: int = 0) -> None:
        if self._transport is not None:
            self._transport.write(self._parts[number])
            if number + 1 < len(self._parts):
                self._loop.call_later(self._gap_s, self._stream, number + 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None


async def _serve(latency_s: float, gap_s: float, tell: Callable[[str], object]) -> None:
    whole, parts = reply(), stream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(latency_s, gap_s, whole, parts), "127.0.0.1", 0, backlog=4096
    )
    tell(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
    await server.serve_forever()


class LoadProvider(ChildProcess):
    """The provider as its own process; `url` is its base address."""

    def __init__(self, folder: Path, latency_ms: float, gap_ms: float = 20) -> None:
        """Prepare it, but start nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        self.url_file = folder / "provider.url"
        argv = [sys.executable, "-m", "tests.bench.load_provider", str(latency_ms)]
        argv += [str(self.url_file), str(os.getpid()), str(gap_ms)]
        super().__init__(argv, log_path=folder / "provider.log", cwd=ROOT)

    def start(self, timeout_s: float = 30) -> Self:
        """It answers at `url`."""
        self.url_file.unlink(missing_ok=True)
        return super().start(timeout_s)

    def ready(self) -> bool:
        """Whether the address has been written in full."""
        return self.url_file.exists() and self.url_file.read_text().endswith("\n")

    @property
    def url(self) -> str:
        """The base address, such as http://127.0.0.1:40123."""
        return self.url_file.read_text().strip()


if __name__ == "__main__":
    die_with_parent()
    if os.getppid() == int(sys.argv[3]):
        gap_ms = float(sys.argv[4]) if len(sys.argv) > 4 else 20
        uvloop.run(_serve(float(sys.argv[1]) / 1000, gap_ms / 1000, Path(sys.argv[2]).write_text))
