"""Posts JSON to one vendor over aiohttp, with the address and the headers of the vendor's SDK.

At 500 calls in flight a call takes 0.81 CPU-ms through `client.chat.completions.create`, 0.46
through the SDK's low-level `post`, 0.23 through its HTTP client, and 0.10 here. The SDK builds the
same URL and headers anew for each call, and has models of its own for requests and responses. Here
address, authentication and headers are taken from the SDK's client once. This also avoids the SDK's
retries and its guard against large `max_tokens`.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp
import httpx2
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from headgate.shared.catalog.access import proxy_of
from headgate.workers.errors import AttemptError, AttemptTimeout, ConnectionLost, InvalidOutput
from headgate.workers.provider import Room
from headgate.workers.providers.reading import MOST_BYTES, Reading, StreamSink

CONNECT_TIMEOUT_S = 5.0

#: The vendors keep an idle connection for minutes. Others may be uvicorn servers, which close after
#: 5 s. A POST that meets that close is lost and its billing unknown, so we close first.
VENDOR_KEEPALIVE_S = 60.0
OTHER_KEEPALIVE_S = 4.0

READ_BUFFER_BYTES = 64 * 1024
"""aiohttp keeps up to twice as much for a call that does not read on; its default is 256 kB."""

#: Raised before any byte of the request was sent. ServerDisconnectedError is not one of them.
_NEVER_SENT = (
    aiohttp.ClientConnectorError,  # refused, DNS, TLS, certificate, proxy
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


@dataclass(frozen=True, slots=True)
class Response:
    """A vendor's response with any status. Header names are in any case.

    `streamed`: it was a stream and went into the sink; `content` is empty. `url`: what was asked.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes | bytearray
    streamed: bool = False
    url: str = ""


def base_address(url: str, endpoints: Sequence[str]) -> SplitResult:
    """Return the base address in a URL, which may name one of these endpoints whole.

    Its query is kept, for servers that want a version or a key in it.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    for endpoint in endpoints:
        path = path.removesuffix(endpoint)
    return parts._replace(path=path, fragment="")


class HttpPool:
    """The connections to one address of a vendor, with its headers; opened at first use."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, object],
        *,
        endpoints: Sequence[str],
        connections: int,
        vendor: bool,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._base = base_address(base_url, endpoints)
        # The SDKs mark headers to be left out with an object that is not a text.
        self._headers = {
            name: value for name, value in headers.items() if isinstance(value, str) and value
        }
        self._connections = connections
        self._most_bytes = most_bytes
        self._keepalive_s = VENDOR_KEEPALIVE_S if vendor else OTHER_KEEPALIVE_S
        self._proxy = proxy_of(base_url)
        self._urls: dict[str, URL] = {}
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(
        self, path: str, body: bytes, *, timeout_s: float, idle_s: float | None = None,
        into: StreamSink | None = None, room: Room | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        """Post and return the whole response, whatever its status. A stream goes into `into`.

        `headers`: those of this call, beside the address's own.

        Raises AttemptTimeout after `timeout_s`, or once no byte has come for `idle_s`;
        ResponseTooLarge, ConnectionLost or InvalidOutput. If the call is cancelled its connection
        is closed, so the vendor learns that nobody waits any more.
        """
        streamed = None
        try:
            async with (
                asyncio.timeout(timeout_s) as limit,
                self._posting(path, body, headers, idle_s) as response,
            ):
                reading = Reading(response, self._most_bytes, limit, room)
                if into is not None and _is_stream(response):
                    streamed = Response(response.status, response.headers, b"", streamed=True)
                    await reading.pour(into)
                    return streamed
                content = await reading.whole()
                url = str(self._url(path))
                return Response(response.status, response.headers, content, url=url)
        except TimeoutError as error:
            if streamed is not None and into is not None and into.ended:
                return streamed
            raise _too_late(error, timeout_s, idle_s) from error
        except aiohttp.ClientResponseError as error:
            # Raised below without its cause: the cause's repr shows the headers, and so the key.
            broken = lost(error)
        except (aiohttp.ClientError, OSError) as error:
            raise lost(error) from error
        raise broken

    def _posting(
        self, path: str, body: bytes, headers: Mapping[str, str] | None, idle_s: float | None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        # Redirects are not followed: a POST would become a GET, or go to a strange server.
        return self._opened().post(
            self._url(path),
            data=aiohttp.BytesPayload(body),  # a search for its type would take 4 us
            headers=headers,
            proxy=self._proxy,
            allow_redirects=False,
            timeout=NO_READ_LIMIT if idle_s is None else _timeout(idle_s),
        )

    async def close(self) -> None:
        """Close all connections; calls in flight fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            whole = self._base._replace(path=self._base.path + path)
            url = self._urls[path] = URL(urlunsplit(whole))
        return url

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
                read_bufsize=READ_BUFFER_BYTES,
                timeout=NO_READ_LIMIT,
            )
        return self._session

    def _ssl(self) -> ssl.SSLContext | bool:
        # The SDKs' own context, which brings certificates if the machine has none.
        return httpx2.create_ssl_context() if self._base.scheme == "https" else True


def _timeout(idle_s: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=idle_s)


NO_READ_LIMIT = _timeout(None)
"""For most calls: a model may think for minutes before its first byte. Made once, in 3.5 us."""


def _is_stream(response: aiohttp.ClientResponse) -> bool:
    # A server that cannot stream answers whole, and one that refuses says so in JSON.
    return response.status == 200 and response.content_type == "text/event-stream"


class NoNetwork(httpx2.AsyncBaseTransport):
    """The transport of an SDK's client that is read for its headers and never called."""


def headers_only_client() -> httpx2.AsyncClient:
    """Return an HTTP client for an SDK that reads no environment and opens nothing."""
    return httpx2.AsyncClient(trust_env=False, transport=NoNetwork())


def _tls(error: aiohttp.ClientSSLError) -> str:
    """Return what went wrong with TLS; asyncio's own text would be that of an unrelated errno."""
    fault = getattr(error, "certificate_error", None) or error.os_error
    why = getattr(fault, "verify_message", "") or getattr(fault, "reason", "") or str(fault)
    what = "TLS failed"
    if isinstance(fault, ssl.CertificateError):
        what = "the certificate is not trusted"
    elif "_" in why:  # OpenSSL's names, such as WRONG_VERSION_NUMBER
        why = why.replace("_", " ").lower()
    return f"{what} ({error.host}:{error.port}): {why}"


def _too_late(error: TimeoutError, timeout_s: float, idle_s: float | None) -> AttemptError:
    """Return our error for a time limit that has passed."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return lost(error)
    why = f"no answer within {timeout_s:g} s"
    if isinstance(error, aiohttp.SocketTimeoutError):
        why = f"no byte of the answer for {idle_s:g} s"
    # The request may have been answered and billed after we stopped listening.
    return AttemptTimeout(why, billed=None)


def lost(error: aiohttp.ClientError | OSError) -> AttemptError:
    """Return our error for a fault of the connection that aiohttp reported."""
    cause = type(error).__name__
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectionLost(f"the connection could not be opened: {_tls(error)}", billed=False)
    if isinstance(error, _NEVER_SENT):
        reason = getattr(error, "os_error", None)
        if isinstance(reason, OSError):  # asyncio's own text names the address, not the reason
            errno = reason.errno or 0
            cause = (os.strerror(errno) if errno > 0 else reason.strerror) or cause
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            cause = f"the proxy {error.host}:{error.port}: {cause}"
        return ConnectionLost(f"the connection could not be opened: {cause}", billed=False)
    if isinstance(error, aiohttp.ClientResponseError) or isinstance(
        error.__cause__, ContentEncodingError
    ):
        return InvalidOutput(f"the answer is not proper HTTP: {cause}", billed=None)
    return ConnectionLost(f"the connection broke: {cause}", billed=None)
