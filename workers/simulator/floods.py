"""Answers that are larger than a client should take, or that come too slowly to ever end."""

import asyncio
import zlib
from collections.abc import Iterator
from itertools import chain, repeat

from aiohttp import web

from headgate.workers.simulator.behaviour import Act
from headgate.workers.simulator.faults import Fault

MARK = "flood-stands-here"
"""The text of an answer that becomes a flood. What is sent has the flood in its place."""

_MARK = MARK.encode()
MB = 1024 * 1024
TEXT = b"0123456789abcdef" * 4096
"""A piece of 64 kB, so that 16 of them are a MB."""

GZIP = 31


async def send_flood(request: web.BaseRequest, act: Act, fault: Fault) -> web.StreamResponse:
    """Send the answer with what the fault puts in the place of its text. It may never end."""
    response = web.StreamResponse(status=act.status, headers=act.headers)
    pieces = _pieces(act, fault)
    if fault.kind == "bomb":
        pieces = iter([await asyncio.to_thread(_zipped, pieces)])
        response.headers["content-encoding"] = "gzip"
    elif act.events is None and fault.mb:
        response.content_length = sum(map(len, _around(act.body))) + fault.mb * MB
    pause_s = fault.delay_ms / 1000 if fault.kind == "drip" else 0
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause_s)
    await response.write_eof()
    return response


def _pieces(act: Act, fault: Fault) -> Iterator[bytes]:
    """Yield what is sent, uncompressed."""
    if act.events is None:
        head, tail = _around(act.body)
        before, start, end, after = b"", head, tail, b""
    else:
        place = next(at for at, event in enumerate(act.events) if _MARK in event)
        start, _, end = act.events[place].partition(_MARK)
        before, after = b"".join(act.events[:place]), b"".join(act.events[place + 1 :])
    piece = TEXT[:1] if fault.kind == "drip" else TEXT
    times = repeat(None, fault.mb * (MB // len(piece))) if fault.mb else repeat(None)
    if act.events is None or fault.kind == "endless-line":
        flood = (piece for _ in times)
        return chain([before + start], flood, [end + after])
    return chain([before], (start + piece + end for _ in times), [after])


def _around(body: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the flood and after it; a body without a text gets a field."""
    if _MARK not in body:
        body = body[:-1] + b',"padding":"' + _MARK + b'"}'
    head, _, tail = body.partition(_MARK)
    return head, tail


def _zipped(pieces: Iterator[bytes]) -> bytes:
    packer = zlib.compressobj(wbits=GZIP)
    return b"".join([*map(packer.compress, pieces), packer.flush()])
