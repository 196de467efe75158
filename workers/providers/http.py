"""The wire to one vendor: posts JSON over aiohttp, with the SDK's address and headers.

A call through `client.chat.completions.create` costs 0.81 CPU-ms at 500 in flight, through the
SDK's low-level `post` 0.46, through its HTTP client 0.23; here it goes over aiohttp itself (0.10).
What is left out is the SDK's rebuilding of the same URL and headers for each call, and its second
model of requests and responses: address, authentication and headers are taken from the SDK's client
once. Its retries and its guard against large `max_tokens` are thereby out of the way too.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from headgate.shared.errors import SettingError
from headgate.workers.errors import AttemptError, AttemptTimeout, ConnectionLost, InvalidOutput

CONNECT_TIMEOUT_S = 5.0

#: The vendors keep an idle connection for minutes. Others may be uvicorn servers, which close
#: after 5 s; a POST that meets that close is lost and of unknown cost, so we close first.
VENDOR_KEEPALIVE_S = 60.0
OTHER_KEEPALIVE_S = 4.0

LINGER_S = 0.05
"""How long the end of the connection's turn is waited for after the end of a stream."""

#: Raised before any byte of the request has left. ServerDisconnectedError is not among them.
_NEVER_SENT = (
    aiohttp.ClientConnectorError,  # refused, DNS, TLS, certificate, proxy
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response of a vendor, whatever its status; names of headers in any case.

    `streamed`: it was a stream, and went to the sink; `content` is empty.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    streamed: bool = False


class StreamSink(Protocol):
    """Takes a stream. `ended`: a connection that breaks now takes nothing of worth with it."""

    ended: bool

    def feed(self, chunk: bytes) -> bool:
        """True once nothing is to be expected any more."""


def checked_key(name: str, api_key: str) -> str:
    """The key without blanks around it; SettingError if it cannot stand in a header."""
    key = api_key.strip()
    if not (key.isascii() and key.isprintable()):
        raise SettingError(f"API key of {name}", "***", "a key is one line of plain ASCII")
    return key


class HttpPool:
    """A pool of connections to one vendor, with an address and headers; opened at first use."""

    def __init__(
        self, base_url: str, headers: Mapping[str, object], *, connections: int, vendor: bool
    ) -> None:
        self._base = URL(base_url)
        # The SDKs mark headers to be left out with an object that is no text.
        self._headers = {
            name: value for name, value in headers.items() if isinstance(value, str) and value
        }
        self._connections = connections
        self._keepalive_s = VENDOR_KEEPALIVE_S if vendor else OTHER_KEEPALIVE_S
        self._proxy = _proxy(self._base)
        self._urls: dict[str, URL] = {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(
        self, path: str, body: bytes, *, timeout_s: float, into: StreamSink | None = None
    ) -> Response:
        """The whole response, whatever its status, within `timeout_s`; a stream goes into `into`.

        Raises AttemptTimeout, ConnectionLost or InvalidOutput; a cancelled call has its connection
        closed, which is how the vendor learns that nobody waits any more.
        """
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = self._base.joinpath(path.lstrip("/"))
        try:
            async with (
                asyncio.timeout(timeout_s),
                # A redirect is not followed: a POST would become a GET, or go to a stranger.
                self._opened().post(
                    url, data=body, proxy=self._proxy, allow_redirects=False
                ) as response,
            ):
                if into is not None and _is_stream(response):
                    await _poured(response.content, into)
                    return Response(response.status, response.headers, b"", streamed=True)
                return Response(response.status, response.headers, await response.read())
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise lost(error) from error
            # The request may have been answered, and charged, after we stopped listening.
            raise AttemptTimeout(f"no answer within {timeout_s:g} s", billed=None) from error
        except aiohttp.ClientResponseError as error:
            # Raised below, unchained: its repr shows the request's headers, and so the key.
            broken = lost(error)
        except (aiohttp.ClientError, OSError) as error:
            raise lost(error) from error
        raise broken

    async def close(self) -> None:
        """All connections are closed; what was in flight fails."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ConnectionLost("the provider's client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                headers=self._headers | {"Content-Type": "application/json"},
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    keepalive_timeout=self._keepalive_s,
                    ssl=self._ssl(),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                # No read timeout: a model may think for minutes before its first byte.
                timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S),
            )
        return self._session

    def _ssl(self) -> ssl.SSLContext | bool:
        # The SDKs' own: with certificates of its own where the machine has none.
        return httpx2.create_ssl_context() if self._base.scheme == "https" else True


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    # A server that cannot stream answers whole, and one that refuses says so in JSON.
    return response.status == 200 and response.content_type == "text/event-stream"


async def _poured(content: aiohttp.StreamReader, into: StreamSink) -> None:
    """The sink has the whole stream, or all of it that matters."""
    try:
        while chunk := await content.readany():
            if into.feed(chunk):
                break
        else:
            return
        # With its last bytes read, which mostly are there already, the connection serves again.
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while await content.readany():
                    pass
    except (aiohttp.ClientError, OSError):
        if not into.ended:
            raise


def _proxy(base_url: URL) -> str | None:
    """The proxy that the machine names for this address, as the SDKs would find it."""
    if base_url.host is None or proxy_bypass(base_url.host):
        return None
    named = getproxies()
    return named.get(base_url.scheme) or named.get("all")


def lost(error: aiohttp.ClientError | OSError) -> AttemptError:
    """Our error for a fault of the connection, by what aiohttp said."""
    said = type(error).__name__
    if isinstance(error, _NEVER_SENT):
        reason = getattr(error, "os_error", None)
        if isinstance(reason, OSError):  # asyncio's own text names the address, not the reason
            errno = reason.errno or 0
            said = (os.strerror(errno) if errno > 0 else reason.strerror) or said
        return ConnectionLost(f"the connection could not be opened: {said}", billed=False)
    if isinstance(error, aiohttp.ClientResponseError) or isinstance(
        error.__cause__, ContentEncodingError
    ):
        return InvalidOutput(f"the answer is not proper HTTP: {said}", billed=None)
    return ConnectionLost(f"the connection broke: {said}", billed=None)
