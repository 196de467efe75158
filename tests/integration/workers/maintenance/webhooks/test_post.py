"""What is posted to a webhook, what of its answer is read, and which addresses are ever dialled."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.shared.webhook_target import AllowedTargets, is_public
from headgate.workers.maintenance.webhooks.dial import AddressInfo, is_own
from headgate.workers.maintenance.webhooks.post import WebhookPost
from headgate.workers.policy.webhook_retry import WebhookReply
from tests.support.child import BUSY

HERE = AllowedTargets.read("127.0.0.0/8")
MB = 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Liar(AbstractResolver):
    """Names that have another address at each look."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.looks = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers[self.looks % len(self.answers)]
        self.looks += 1
        return [
            ResolveResult(
                hostname=host, host=one, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in one else socket.AF_INET,
            )
            for one in addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    yield f"http://127.0.0.1:{server.port}/hook"
    await server.close()


@asynccontextmanager
async def posting(allowed: AllowedTargets = HERE, **given: Any) -> AsyncIterator[WebhookPost]:
    poster = WebhookPost(allowed, **given)
    yield poster
    await poster.close()


async def post(url: str, allowed: AllowedTargets = HERE, **given: Any) -> WebhookReply:
    async with posting(allowed, **given) as poster:
        return await poster.post(url, {"webhook-id": "evt_1"}, '{"a": 1}')


async def test_the_body_goes_out_and_the_status_comes_back() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert await request.text() == '{"a": 1}'
        assert request.headers["webhook-id"] == "evt_1"
        return web.Response(status=503, headers={"Retry-After": "7"})

    async with receiver(answer) as url:
        assert await post(url) == WebhookReply(503, retry_after_ms=7000)


async def test_a_redirect_is_not_followed() -> None:
    paths = []

    async def answer(request: web.Request) -> web.StreamResponse:
        paths.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with receiver(answer) as url:
        assert (await post(url)).status == 307
    assert paths == ["/hook"]


async def test_of_a_large_or_endless_answer_little_is_read() -> None:
    sent = 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Encoding": "gzip"})
        await response.prepare(request)
        while sent < 50 * MB:
            await response.write(b"x" * 65536)
            sent += 65536
        return response

    async with receiver(answer) as url:
        began = time.monotonic()
        assert (await post(url)).status == 200
        assert time.monotonic() - began < 10 * BUSY
    assert sent < 20 * MB, "the rest stays in the buffers of the two sockets"


async def test_a_receiver_that_hangs_is_left_after_the_time_limit() -> None:
    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    async with receiver(hang) as url:
        assert await post(url, timeout_s=0.3) == WebhookReply(None, "no answer within 0.3 s")


async def test_a_body_that_does_not_end_does_not_hide_the_status() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"o")
        await asyncio.sleep(3600)
        return response

    async with receiver(answer) as url:
        assert (await post(url)).status == 200


async def test_faults_of_the_connection_have_a_reason_without_the_url() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert await post(f"http://127.0.0.1:{port}/?key=s") == WebhookReply(
        None, "the connection failed: Connection refused"
    )

    async def not_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"\x00\x01 nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(not_http, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?key=s"
    plain, tls = await post(url), await post(url.replace("http:", "https:"))
    server.close()
    for reply in (plain, tls):
        assert reply.status is None
        assert reply.error
        assert "key" not in reply.error
    assert tls.error == "TLS failed, or the certificate is not trusted"


async def test_a_certificate_is_checked_against_the_name() -> None:
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hooks.example").configure_cert(context)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response()

    app = web.Application()
    app.router.add_post("/", answer)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=context)
    names = Liar(["127.0.0.1"])
    for host, status in (("hooks.example", 200), ("other.example", None)):
        url = f"https://{host}:{server.port}/"
        assert (await post(url, trusted=trusted, names=names)).status == status
    await server.close()


async def test_a_name_that_is_private_at_the_second_look_reaches_nothing() -> None:
    """Its address is checked when it is dialled, not when the URL is read."""
    reached = []

    async def answer(request: web.Request) -> web.StreamResponse:
        reached.append(request)
        return web.Response()

    async with receiver(answer) as url:
        port = url.split(":")[2].split("/")[0]
        names = Liar(["93.184.216.34"], ["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"])
        names.looks = 1
        for n in range(3):
            reply = await post(f"https://rebind{n}.example:{port}/", AllowedTargets(), names=names)
            assert reply.status is None
            assert "not public or not allowed; see HEADGATE_WEBHOOK_ALLOW" in reply.error
        for literal in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"):
            reply = await post(f"https://{literal}:{port}/", AllowedTargets())
            assert reply.status is None
    assert reached == []


ADDRESSES = st.one_of(
    st.sampled_from(["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1", "8.8.8.8"]),
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=4).map(lambda one: f"::ffff:{one}"),
    st.ip_addresses(v=4).map(lambda one: f"64:ff9b::{one}"),
)  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.lists(ADDRESSES, min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["https", "http"]),
    st.sampled_from(["", "10.0.0.0/8", "named.example,fe80::/10"]),
    st.sampled_from(["a.example", "named.example"]),
)
def test_no_forbidden_address_is_ever_dialled(
    answers: list[list[str]], scheme: str, allow: str, host: str
) -> None:
    dialled: list[str] = []

    def record(info: AddressInfo) -> socket.socket:
        dialled.append(str(info[4][0]))
        raise ConnectionRefusedError(111, "recorded by the test")

    allowed = AllowedTargets.read(allow)

    async def look_and_post() -> None:
        names = Liar(*answers)
        async with posting(allowed, names=names, opened=record) as poster:
            for n in range(len(answers)):
                url = f"{scheme}://{host}:{8000 + n}/"
                assert (await poster.post(url, {}, "{}")).status is None
        assert names.looks == len(answers)

    asyncio.run(look_and_post())
    if host in allowed.hosts:
        assert len(dialled) >= len(answers), "the operator trusts this name"
        return
    for address in dialled:
        in_networks = allowed.may_dial("plain", address)
        assert in_networks or (scheme == "https" and is_public(address))


async def test_a_name_in_punycode_is_allowed_as_it_is_written() -> None:
    dialled: list[str] = []

    def record(info: AddressInfo) -> socket.socket:
        dialled.append(str(info[4][0]))
        raise ConnectionRefusedError(111, "recorded by the test")

    name = "xn--bcher-kva.example"
    names = Liar(["10.1.2.3"])
    await post(f"http://{name}/", AllowedTargets.read(name), names=names, opened=record)
    assert dialled == ["10.1.2.3"]


def test_this_machines_own_addresses_are_known() -> None:
    assert is_own("127.0.0.1")
    assert not is_own("8.8.8.8")
