"""Answers that are too large, never end or come too slowly, in every form that they can have."""

from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import orjson
import pytest

from headgate.shared.job.request import Request
from headgate.workers.clients.in_flight import AnswerRoom, InFlight
from headgate.workers.errors import AttemptError, AttemptTimeout, ResponseTooLarge
from headgate.workers.provider import Answer, AnswerSink, Unread
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from headgate.workers.providers.reading import MOST_OF_ERROR
from tests.support.fake_vendor import Script, Vendor, Visit, vendor
from tests.support.sinks import RecordingSink
from tests.support.vendor_answers import VENDOR_ANSWERS

KEY = "sk-test-1234567890"
BOUND_S = 60.0
MB = 1024 * 1024
DIALECTS = pytest.mark.parametrize("dialect", ["openai", "anthropic"])
SAID = {one.dialect: one for one in reversed(VENDOR_ANSWERS) if one.content}
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: %b\r\n%b\r\n"
SSE, JSON = b"text/event-stream", b"application/json"
Provider = OpenAIProvider | AnthropicProvider


@asynccontextmanager
async def asking(dialect: str, script: Script) -> AsyncIterator[tuple[Provider, Vendor]]:
    """A provider that takes answers of 1 MB, and the vendor that it asks."""
    async with vendor(script) as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        made: Provider
        if dialect == "openai":
            made = OpenAIProvider(name="openai", api_key=KEY, base_url=url, most_bytes=MB)
        else:
            made = AnthropicProvider(name="anthropic", api_key=KEY, base_url=url, most_bytes=MB)
        try:
            yield made, server
        finally:
            await made.close()


async def ask(
    by: Provider, sink: AnswerSink | None = None, timeout_s: float = BOUND_S,
    room: AnswerRoom | None = None,
) -> Answer:  # fmt: skip
    return await by.ask(
        Request(prompt="hello"), model="m", max_output_tokens=64, timeout_s=timeout_s,
        sink=sink, room=room,
    )  # fmt: skip


async def failing(dialect: str, script: Script, *, streams: bool = False) -> AttemptError:
    """The error of a call, whose connection was closed."""
    pieces = RecordingSink()
    async with asking(dialect, script) as (by, server):
        with pytest.raises(AttemptError) as caught:
            await ask(by, pieces if streams else None)
        await asyncio.wait_for(server.left.wait(), BOUND_S)
        assert len(server.visits) == 1
    return caught.value


async def chunk(visit: Visit, content: bytes) -> None:
    await visit.send(b"%x\r\n%b\r\n" % (len(content), content))


def endless(begin: bytes, more: bytes, kind: bytes = JSON, status: int = 200) -> Script:
    """A body of this kind that goes on as fast as it is taken."""

    async def script(visit: Visit) -> None:
        await visit.send((CHUNKED % (kind, b"")).replace(b"200", b"%d" % status))
        await chunk(visit, begin)
        while True:
            await chunk(visit, more)

    return script


def is_too_large(error: AttemptError) -> bool:
    """Whether the call ended as an answer that is too large: not asked again, of unknown cost."""
    assert (type(error), error.code) == (ResponseTooLarge, "response_too_large"), error
    assert (error.retryable, error.falls_back, error.billed) == (False, False, None)
    return "is larger than 1 MB" in error.message or "more than 8 MB of memory" in error.message


@DIALECTS
async def test_a_body_without_end_is_cut(dialect: str) -> None:
    assert is_too_large(await failing(dialect, endless(b'{"a": "', b"x" * 65536)))


@DIALECTS
@pytest.mark.parametrize("begin", [b"data: ", b": ", b"data: {}\n\n", b"data: x\n"])
async def test_a_stream_without_end_is_cut_also_in_one_line_or_one_event(
    dialect: str, begin: bytes
) -> None:
    more = begin * 10_000 if begin.endswith(b"\n") else b"x" * 65536
    assert is_too_large(await failing(dialect, endless(begin, more, SSE), streams=True))


@DIALECTS
async def test_a_content_length_above_the_limit_is_not_even_read(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{")
        await visit.reader.readexactly(1)

    assert is_too_large(await failing(dialect, script))


def zlib_raw(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(content) + packer.flush()


@DIALECTS
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", zlib_raw)]
)
async def test_a_small_body_that_unpacks_to_a_large_one_is_cut(
    dialect: str, streams: bool, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    packed = pack((b": " if streams else b" ") + b"x" * 40 * MB)
    assert len(packed) < MB // 8
    kind = "text/event-stream" if streams else "application/json"

    async def script(visit: Visit) -> None:
        await visit.answer(packed, Content_Encoding=coding, Content_Type=kind)

    async with asking(dialect, script) as (by, _):
        with pytest.raises(ResponseTooLarge) as caught:
            await ask(by, Unread() if streams else None)
    assert is_too_large(caught.value)


@DIALECTS
async def test_json_of_little_but_brackets_is_cut_before_it_fills_the_memory(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(b'{"a": [' + b"[]," * (MB // 4) + b"[]]}")

    async with asking(dialect, script) as (by, _):
        with pytest.raises(ResponseTooLarge, match="would take more than 8 MB of memory"):
            await ask(by)


@DIALECTS
async def test_an_answer_just_within_the_limit_is_taken(dialect: str) -> None:
    whole = orjson.dumps(SAID[dialect].body)

    async def script(visit: Visit) -> None:
        await visit.answer(whole + b" " * (MB - len(whole)))

    async with asking(dialect, script) as (by, _):
        assert (await ask(by)).reply.content == SAID[dialect].content


@DIALECTS
@pytest.mark.parametrize(("status", "code"), [(429, "rate_limited"), (401, "authentication")])
async def test_an_error_body_without_end_is_told_by_its_status(
    dialect: str, status: int, code: str
) -> None:
    error = await failing(dialect, endless(b'{"error": "', b"x" * 65536, status=status))
    assert (error.code, error.billed) == (code, False)


async def test_a_refusal_that_repeats_the_request_is_understood() -> None:
    """It may be larger than an answer: a request has up to 10 MB."""
    message = {"error": {"message": "x" * 11 * MB, "code": "context_length_exceeded"}}
    assert len(orjson.dumps(message)) < MOST_OF_ERROR

    async def script(visit: Visit) -> None:
        await visit.answer(message, status=400)

    async with vendor(script) as server:
        by = OpenAIProvider(
            name="openai", api_key=KEY, base_url=f"http://127.0.0.1:{server.port}/v1"
        )
        with pytest.raises(AttemptError) as caught:
            await ask(by)
        await by.close()
    assert caught.value.code == "context_length"


@DIALECTS
@pytest.mark.parametrize("more", [b": x\n" * 9999, b""], ids=["floods", "falls silent"])
async def test_an_answer_that_is_complete_is_kept_whatever_follows(
    dialect: str, more: bytes
) -> None:
    events = SAID[dialect].given().pieces()

    async def script(visit: Visit) -> None:
        await visit.send(CHUNKED % (SSE, b""))
        await chunk(visit, b"".join(events[:-1]))
        while more:
            await chunk(visit, more)
        await visit.reader.readexactly(1)

    async with asking(dialect, script) as (by, _):
        answer = await ask(by, Unread(), timeout_s=BOUND_S if more else 6)
    assert answer.reply.content == SAID[dialect].content


@DIALECTS
async def test_a_key_in_the_request_id_of_an_answer_that_is_too_large_is_masked(
    dialect: str,
) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(b"x" * (MB + 1), x_request_id=f"req_{KEY}")

    async with asking(dialect, script) as (by, _):
        with pytest.raises(ResponseTooLarge) as caught:
            await ask(by)
    assert caught.value.request_id is not None
    assert KEY not in caught.value.request_id


@DIALECTS
@pytest.mark.parametrize("streams", [False, True])
async def test_a_drip_ends_with_the_time_limit_of_the_call(dialect: str, streams: bool) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(CHUNKED % (SSE if streams else JSON, b""))
        await chunk(visit, b"data: {}\n\n" if streams else b"{")
        while True:
            await chunk(visit, b":\n" if streams else b" ")
            await asyncio.sleep(0.05)

    async with asking(dialect, script) as (by, server):
        with pytest.raises(AttemptTimeout, match="no answer within 3 s") as caught:
            await ask(by, Unread() if streams else None, timeout_s=3)
        await asyncio.wait_for(server.left.wait(), BOUND_S)
    assert caught.value.billed is None


async def test_a_flood_cannot_outrun_the_time_limit() -> None:
    """Its bytes are always there: the reader gives way by itself, or no timer would ever fire."""
    script = endless(b": ", b"x" * 65536, SSE)
    async with vendor(script) as server:
        by = OpenAIProvider(
            name="openai", api_key=KEY, base_url=f"http://127.0.0.1:{server.port}/v1",
            most_bytes=1 << 50,
        )  # fmt: skip
        with pytest.raises(AttemptTimeout):
            await ask(by, Unread(), timeout_s=1)
        await by.close()


@DIALECTS
@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_without_room_waits_and_its_time_limit_waits_too(
    dialect: str, streams: bool
) -> None:
    whole = orjson.dumps(SAID[dialect].body) + b" " * (MB // 2)
    events = b"".join(SAID[dialect].given().pieces())
    long = b"data: " + b" " * (MB // 2) + b"{}\n\n"
    kind = "text/event-stream" if streams else "application/json"

    async def script(visit: Visit) -> None:
        await visit.answer(long + events if streams else whole, Content_Type=kind)

    in_flight = InFlight(MB // 4)
    full, room = AnswerRoom(in_flight), AnswerRoom(in_flight)
    full.hold(MB)
    full.hold(2 * MB)
    async with asking(dialect, script) as (by, _):
        sink = Unread() if streams else None
        call = asyncio.ensure_future(ask(by, sink, timeout_s=5, room=room))
        began = time.monotonic()
        while time.monotonic() - began < 6:
            await asyncio.sleep(0.1)
            assert not call.done()
        full.release()
        answer = await asyncio.wait_for(call, BOUND_S)
    assert answer.reply.content == SAID[dialect].content
    assert in_flight.answers == room.size > 0
    room.release()
    assert in_flight.answers == 0
