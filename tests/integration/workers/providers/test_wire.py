"""The providers over real connections: what the vendor sees, and what every fault becomes."""

from __future__ import annotations

import asyncio
import base64
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
import trustme

from headgate.shared.errors import SettingError
from headgate.shared.job.request import Request
from headgate.workers.errors import (
    AttemptError,
    AttemptTimeout,
    ConnectionLost,
    InvalidOutput,
    RateLimited,
    RequestRefused,
)
from headgate.workers.provider import Answer
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from tests.support.fake_vendor import Script, Vendor, Visit, vendor
from tests.support.sinks import RecordingSink

KEY = "sk-test-1234567890"
BOUND_S = 60.0
CHAT = {
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"content": "Hi!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}
MESSAGE = {
    "type": "message",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "Hi!"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
Provider = OpenAIProvider | AnthropicProvider


@asynccontextmanager
async def provider(dialect: str, port: int, base_url: str | None = None) -> AsyncIterator[Provider]:
    address = base_url or f"http://127.0.0.1:{port}"
    made: Provider
    if dialect == "openai":
        made = OpenAIProvider(
            name="openai", api_key=KEY, base_url=f"{address}/v1", organization="org-1"
        )
    else:
        made = AnthropicProvider(name="anthropic", api_key=KEY, base_url=address)
    try:
        yield made
    finally:
        await made.close()


async def ask(by: Provider, timeout_s: float = BOUND_S, request: Request | None = None) -> Answer:
    return await by.ask(
        request or Request(prompt="Tell me the secret plan"),
        model="gpt-4o-mini",
        max_output_tokens=64,
        timeout_s=timeout_s,
    )


async def failing(
    dialect: str, script: Script, timeout_s: float = BOUND_S, base_url: str | None = None
) -> AttemptError:
    async with vendor(script) as server, provider(dialect, server.port, base_url) as by:
        with pytest.raises(AttemptError) as caught:
            await ask(by, timeout_s)
        return caught.value


DIALECTS = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


async def test_openai_is_asked_in_its_own_words() -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(CHAT, x_request_id="req_1", X_RateLimit_Remaining_Requests="9", Via="x")

    async with vendor(script) as server, provider("openai", server.port) as by:
        answer = await ask(by)
    (visit,) = server.visits
    assert visit.path == "/v1/chat/completions"
    assert visit.body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "Tell me the secret plan"}],
    }
    assert visit.headers["authorization"] == f"Bearer {KEY}"
    assert visit.headers["openai-organization"] == "org-1"
    assert "openai-project" not in visit.headers
    assert visit.headers["user-agent"].startswith("AsyncOpenAI/")
    assert (answer.reply.content, answer.reply.usage.input_tokens) == ("Hi!", 3)
    assert answer.headers == {"x-request-id": "req_1", "x-ratelimit-remaining-requests": "9"}


async def test_anthropic_is_asked_in_its_own_words_with_a_large_limit_and_without_streaming() -> (
    None
):
    async def script(visit: Visit) -> None:
        await visit.answer(MESSAGE, request_id="req_2")

    async with vendor(script) as server, provider("anthropic", server.port) as by:
        asked = Request(prompt="Hi", params={"temperature": 0.2})
        answer = await by.ask(asked, model="c", max_output_tokens=128_000, timeout_s=BOUND_S)
    (visit,) = server.visits
    assert visit.path == "/v1/messages"
    assert visit.headers["anthropic-version"] == "2023-06-01"  # a later one takes no temperature
    assert KEY in (visit.headers.get("authorization", "") + visit.headers.get("x-api-key", ""))
    assert visit.body == {
        "model": "c",
        "max_tokens": 128_000,
        "temperature": 0.2,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    assert (answer.reply.content, answer.reply.request_id) == ("Hi!", "req_2")


async def test_an_embedding_job_goes_to_openai_and_is_refused_by_anthropic() -> None:
    async def script(visit: Visit) -> None:
        await visit.answer({"data": [{"index": 0, "embedding": [0.5]}]})

    request = Request(input="a")
    async with vendor(script) as server:
        async with provider("openai", server.port) as by:
            answer = await ask(by, request=request)
        async with provider("anthropic", server.port) as other:
            with pytest.raises(RequestRefused) as caught:
                await ask(other, request=request)
    assert answer.reply.embeddings == [[0.5]]
    assert [visit.path for visit in server.visits] == ["/v1/embeddings"]
    assert (caught.value.falls_back, caught.value.billed) == (True, False)


@DIALECTS
async def test_cancelling_closes_the_connection_to_the_vendor(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.reader.readexactly(1)  # says nothing, and notices when the caller hangs up

    async with vendor(script) as server, provider(dialect, server.port) as by:
        asking = asyncio.create_task(ask(by))
        await asyncio.wait_for(server.arrived.wait(), BOUND_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.left.wait(), BOUND_S)


@DIALECTS
async def test_cancelling_in_the_middle_of_the_body_closes_the_connection(dialect: str) -> None:
    begun = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        begun.set()
        await visit.reader.readexactly(1)

    async with vendor(script) as server, provider(dialect, server.port) as by:
        asking = asyncio.create_task(ask(by))
        await asyncio.wait_for(begun.wait(), BOUND_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.left.wait(), BOUND_S)


@DIALECTS
async def test_no_answer_in_time_is_of_unknown_cost_and_hangs_up(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.reader.readexactly(1)

    async with vendor(script) as server, provider(dialect, server.port) as by:
        with pytest.raises(AttemptTimeout) as caught:
            await ask(by, timeout_s=2)
        await asyncio.wait_for(server.left.wait(), BOUND_S)
    assert caught.value.billed is None


@DIALECTS
async def test_a_body_that_never_ends_is_cut_at_the_same_time(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await visit.send(b"1\r\n \r\n")
            await asyncio.sleep(0.01)

    assert isinstance(await failing(dialect, script, timeout_s=2), AttemptTimeout)


@DIALECTS
async def test_a_connection_cut_before_the_headers_is_of_unknown_cost(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        raise ConnectionError

    error = await failing(dialect, script)
    assert (type(error), error.billed) == (ConnectionLost, None)


@DIALECTS
async def test_a_connection_cut_in_the_body_is_of_unknown_cost(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        raise ConnectionError

    error = await failing(dialect, script)
    assert (type(error), error.billed) == (ConnectionLost, None)


@DIALECTS
async def test_a_reset_connection_is_of_unknown_cost(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, 0 s: close() sends a reset
        visit.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        visit.writer.transport.abort()
        raise ConnectionError

    error = await failing(dialect, script)
    assert (type(error), error.billed) == (ConnectionLost, None)


@DIALECTS
async def test_a_refused_connection_cost_nothing(dialect: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port
        async with provider(dialect, taken.getsockname()[1]) as by:
            with pytest.raises(ConnectionLost) as caught:
                await ask(by)
    assert caught.value.billed is False
    assert "Connection refused" in caught.value.message


@DIALECTS
async def test_an_unknown_host_cost_nothing(dialect: str) -> None:
    async with provider(dialect, 0, "http://vendor.invalid") as by:
        with pytest.raises(ConnectionLost) as caught:
            await ask(by, timeout_s=60)
    assert caught.value.billed is False


@DIALECTS
async def test_a_failed_tls_handshake_cost_nothing(dialect: str) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 no TLS here\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        async with provider(dialect, 0, f"https://127.0.0.1:{port}") as by:
            with pytest.raises(ConnectionLost) as caught:
                await ask(by)
    finally:
        server.close()
    assert caught.value.billed is False
    assert "could not be opened: TLS failed (127.0.0.1:" in caught.value.message


@DIALECTS
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"<html>",
        b"null",
        b"7",
        b"[]",
        b'"x"',
        b"{}",
        b'{"a": NaN}',
        b"\xff",
        b"[" * 9999,
    ],
)
async def test_a_good_status_with_no_answer_is_an_invalid_output(
    dialect: str, content: bytes
) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(content, x_request_id="req_3")

    error = await failing(dialect, script)
    assert (type(error), error.billed, error.request_id) == (InvalidOutput, None, "req_3")


#: Answers that break the rules of JSON, with the text that is in them: raw, then as it is read.
ODD_TEXTS = [
    (b"half a pair \\ud83d", "half a pair \ufffd"),
    (
        b"the other half \\ude00 and a pair \\ud83d\\ude00",
        "the other half \ufffd and a pair \U0001f600",
    ),
    (b"no UTF-8 \xff", "no UTF-8 \ufffd"),
    (b"two\nlines", "two\nlines"),
    ("\u00fc".encode(), "\u00fc"),
]


def odd(dialect: str, text: bytes) -> bytes:
    """An answer as paid for, with this text and logprobs that no JSON can hold."""
    whole = orjson.dumps(CHAT if dialect == "openai" else MESSAGE).replace(b"Hi!", text)
    return whole[:-1] + b', "logprobs": [-Infinity, Infinity, NaN, 1e999]}'


@DIALECTS
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize(("text", "read"), ODD_TEXTS)
async def test_an_answer_that_breaks_the_rules_of_json_is_read_and_paid_once(
    dialect: str, mark: bytes, text: bytes, read: str
) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(mark + odd(dialect, text))

    async with vendor(script) as server, provider(dialect, server.port) as by:
        answer = await ask(by)
    assert len(server.visits) == 1
    assert answer.reply.content == read
    usage = answer.reply.usage
    assert (answer.counted, usage.input_tokens, usage.output_tokens) == (True, 3, 2)


async def test_an_answer_in_utf_16_is_read() -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(orjson.dumps(CHAT).decode().encode("utf-16"))

    async with vendor(script) as server, provider("openai", server.port) as by:
        assert (await ask(by)).reply.content == "Hi!"


@DIALECTS
async def test_a_stream_that_breaks_the_rules_of_json_is_read_and_paid_once(dialect: str) -> None:
    mark = b"\xef\xbb\xbf"
    events = {
        "openai": [
            mark + b'data: {"choices": [{"delta": {"content": "a\\ud83d"}, "logprobs": [NaN]}]}',
            b"data: " + mark + b'{"choices": [{"delta": {"content": "b\xff"}}], "x": -Infinity}',
            b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}],'
            b' "usage": {"prompt_tokens": 3, "completion_tokens": 2}}',
            b"data: [DONE]",
        ],
        "anthropic": [
            mark + b'data: {"type": "message_start", "message": {"usage": {"input_tokens": 3}}}',
            b'data: {"type": "content_block_start", "index": 0,'
            b' "content_block": {"type": "text", "text": "a\\ud83d"}}',
            b"data: " + mark + b'{"type": "content_block_delta", "index": 0, "x": [NaN, -Infinity],'
            b' "delta": {"type": "text_delta", "text": "b\xff"}}',
            b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"},'
            b' "usage": {"output_tokens": 2}}',
            b'data: {"type": "message_stop"}',
        ],
    }

    async def script(visit: Visit) -> None:
        body = b"".join(event + b"\n\n" for event in events[dialect])
        await visit.answer(body, Content_Type="text/event-stream")

    pieces = RecordingSink()
    async with vendor(script) as server, provider(dialect, server.port) as by:
        answer = await by.ask(
            Request(prompt="Hi"), model="m", max_output_tokens=64, timeout_s=BOUND_S,
            sink=pieces,
        )  # fmt: skip
    assert len(server.visits) == 1
    assert (answer.reply.content, "".join(pieces.texts)) == ("a\ufffdb\ufffd", "a\ufffdb\ufffd")
    usage = answer.reply.usage
    assert (answer.counted, usage.input_tokens, usage.output_tokens) == (True, 3, 2)


async def test_the_arguments_of_a_streamed_call_may_hold_what_json_forbids() -> None:
    start = {"type": "content_block_start", "index": 0,
             "content_block": {"type": "tool_use", "name": "f", "input": {}}}  # fmt: skip
    written = {"type": "input_json_delta", "partial_json": '{"a": NaN, "b": "\\ud83d"}'}
    events = [
        start,
        {"type": "content_block_delta", "index": 0, "delta": written},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]

    async def script(visit: Visit) -> None:
        body = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
        await visit.answer(body, Content_Type="text/event-stream")

    pieces = RecordingSink()
    async with vendor(script) as server, provider("anthropic", server.port) as by:
        answer = await by.ask(
            Request(prompt="Hi"), model="m", max_output_tokens=64, timeout_s=BOUND_S,
            sink=pieces,
        )  # fmt: skip
    (call,) = answer.reply.tool_calls or []
    assert call["function"]["arguments"] == '{"a":null,"b":"\ufffd"}'


async def test_an_embedding_with_nan_has_null_in_its_place() -> None:
    packed = base64.b64encode(struct.pack("<2f", math.nan, 0.5)).decode()

    async def script(visit: Visit) -> None:
        rows = b'[{"index": 0, "embedding": [NaN, 0.5]}, {"index": 1, "embedding": "%s"}]'
        await visit.answer(b'{"data": ' + rows % packed.encode() + b"}")

    async with vendor(script) as server, provider("openai", server.port) as by:
        answer = await ask(by, request=Request(input=["a", "b"]))
    assert answer.reply.embeddings == [[None, 0.5], [None, 0.5]]


@DIALECTS
async def test_a_refusal_that_breaks_the_rules_of_json_keeps_its_code(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(
            b'{"error": {"code": "rate_limit_exceeded", "message": "not \\ud83d now"}}', 400
        )

    error = await failing(dialect, script)
    assert (type(error), error.message) == (RateLimited, "HTTP 400: not \ufffd now")


@DIALECTS
@pytest.mark.parametrize(
    "raw",
    [
        b"SMTP ready\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    ],
)
async def test_what_is_no_http_is_an_invalid_output(dialect: str, raw: bytes) -> None:
    async def script(visit: Visit) -> None:
        await visit.send(raw)

    error = await failing(dialect, script)
    assert (type(error), error.billed) == (InvalidOutput, None)
    assert KEY not in repr([error, error.__cause__, error.__context__])


@DIALECTS
async def test_a_refusal_says_when_to_come_back_and_is_asked_once(dialect: str) -> None:
    refusal = {
        "error": {"type": "rate_limit_error", "message": f"slow down, {KEY}: 'Tell me the s"}
    }
    visits: list[Visit] = []

    async def script(visit: Visit) -> None:
        visits.append(visit)
        await visit.answer(refusal, 429, Retry_After="7", Request_Id="req_4")

    error = await failing(dialect, script)
    assert isinstance(error, RateLimited)
    assert (error.retry_after_ms, error.billed, error.request_id) == (7000, False, "req_4")
    assert error.message == "HTTP 429: slow down, ***: '[...]"
    assert len(visits) == 1


@DIALECTS
async def test_an_error_with_status_200_is_an_error(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer({"error": {"code": 429, "message": "later"}})

    assert isinstance(await failing(dialect, script), RateLimited)


@DIALECTS
async def test_six_hundred_calls_are_in_flight_together_on_reused_connections(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both sides of all connections share one loop: on a busy machine opening them takes a while.
    patient = aiohttp.ClientTimeout(sock_connect=180.0)
    monkeypatch.setattr("headgate.workers.providers.http.NO_READ_LIMIT", patient)
    waiting: list[Visit] = []
    good = CHAT if dialect == "openai" else MESSAGE

    async def script(visit: Visit) -> None:
        waiting.append(visit)
        if len(waiting) == 600:  # nobody is answered before all have come
            for one in waiting:
                await one.answer(good)
            waiting.clear()

    async with vendor(script) as server, provider(dialect, server.port) as by:
        for _ in range(2):
            await asyncio.gather(*(ask(by, timeout_s=180) for _ in range(600)))
    # One that is idle for 15 s is closed, which some are where that takes so long.
    assert 600 <= server.connections < 1200


@DIALECTS
async def test_a_proxy_of_the_environment_is_ours_to_read_and_not_the_sdks(
    dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(CHAT if dialect == "openai" else MESSAGE)

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    async with vendor(script) as server, provider(dialect, server.port) as by:
        await ask(by)
    monkeypatch.setenv("NO_PROXY", "vendor.invalid")
    async with provider(dialect, 0, "http://vendor.invalid") as by:
        with pytest.raises(ConnectionLost):
            await ask(by)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(SettingError, match="ALL_PROXY"):
        async with provider(dialect, 0, "http://vendor.invalid"):
            pass
    async with vendor(script) as server:
        monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{server.port}")
        async with provider(dialect, 0, "http://vendor.invalid") as by:
            await ask(by)
    assert server.visits[0].path.startswith("http://vendor.invalid/v1/")


async def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://me:swordfish@127.0.0.1:{port}")
        async with provider("openai", 0, "http://vendor.invalid") as by:
            with pytest.raises(ConnectionLost) as caught:
                await ask(by)
    message = "the connection could not be opened: the proxy 127.0.0.1:{}: Connection refused"
    assert caught.value.message == message.format(port)


@pytest.mark.parametrize(
    ("dialect", "base", "path"),
    [
        ("openai", "/v1/", "/v1/chat/completions"),
        ("openai", "/v1?api-version=1&k=a%20b", "/v1/chat/completions?api-version=1&k=a%20b"),
        ("openai", "/v1/chat/completions", "/v1/chat/completions"),
        ("openai", "/v1/embeddings/", "/v1/chat/completions"),
        ("openai", "/d/x/chat/completions?v=1", "/d/x/chat/completions?v=1"),
        ("openai", "/a%2Fb/v1", "/a%2Fb/v1/chat/completions"),
        ("anthropic", "", "/v1/messages"),
        ("anthropic", "/v1", "/v1/messages"),
        ("anthropic", "/v1/messages", "/v1/messages"),
        ("anthropic", "/p/v1/messages?beta=true", "/p/v1/messages?beta=true"),
    ],
)
async def test_a_base_address_keeps_its_query_and_may_be_a_whole_endpoint(
    dialect: str, base: str, path: str
) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(CHAT if dialect == "openai" else MESSAGE)

    kind = OpenAIProvider if dialect == "openai" else AnthropicProvider
    async with vendor(script) as server:
        made = kind(name="x", api_key=KEY, base_url=f"http://127.0.0.1:{server.port}{base}")
        try:
            await ask(made)
        finally:
            await made.close()
    assert [visit.path for visit in server.visits] == [path]


@DIALECTS
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_told_with_its_target_and_not_followed(
    dialect: str, status: int
) -> None:
    visits: list[Visit] = []

    async def script(visit: Visit) -> None:
        visits.append(visit)
        await visit.answer(b"", status, Location="https://u:pw@new.example/v2/x?key=swordfish")

    error = await failing(dialect, script)
    assert (error.code, error.billed, error.retryable, error.falls_back) == (
        "provider_error", False, False, True,
    )  # fmt: skip
    path = "/v1/chat/completions" if dialect == "openai" else "/v1/messages"
    asked = f"http://{visits[0].headers['host']}{path}"
    assert error.message.startswith(
        f"HTTP {status}, with no reason given; {asked} redirects to https://new.example/v2/x, "
        "which is not followed; set the provider's base URL (base_url in the catalog, "
    )
    assert len(visits) == 1


@DIALECTS
async def test_a_404_of_a_wrong_address_is_not_an_unknown_model(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer({"detail": "Not Found"}, 404)

    error = await failing(dialect, script)
    assert (error.code, error.billed, error.retryable) == ("provider_error", False, False)
    assert error.message.startswith("HTTP 404: Not Found; http://127.0.0.1:")
    assert "is no endpoint; set the provider's base URL" in error.message


@DIALECTS
async def test_a_certificate_that_is_not_trusted_is_told_as_such(dialect: str) -> None:
    async def script(visit: Visit) -> None:
        await visit.answer(CHAT)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(Vendor(script), "127.0.0.1", 0, ssl=context)
    try:
        port = server.sockets[0].getsockname()[1]
        async with provider(dialect, 0, f"https://127.0.0.1:{port}") as by:
            with pytest.raises(ConnectionLost) as caught:
                await ask(by)
    finally:
        server.close()
    words = "the connection could not be opened: the certificate is not trusted (127.0.0.1:"
    assert caught.value.message.startswith(words)
    assert caught.value.message.endswith("unable to get local issuer certificate")
    assert caught.value.billed is False


@DIALECTS
async def test_a_closed_provider_refuses_without_a_call(dialect: str) -> None:
    async with provider(dialect, 1) as by:
        pass
    with pytest.raises(ConnectionLost) as caught:
        await ask(by)
    assert caught.value.billed is False
