"""The wire to one vendor: posts JSON over the SDK's own aiohttp client; its faults are ours.

A call through `client.chat.completions.create` costs 0.81 CPU-ms at 500 in flight, through the
SDK's low-level `post` 0.46, and as here 0.23 (bare aiohttp: 0.10). What is left out is the SDK's
rebuilding of the same URL and headers for each call: both are taken from the SDK's client once.
Its retries and its guard against large `max_tokens` are thereby out of the way too.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import aiohttp
import httpx2

from shared.errors import AttemptError, AttemptTimeout, ConnectionLost, InvalidOutput, SettingError

CONNECT_TIMEOUT_S = 5.0

#: The vendors keep an idle connection for minutes. Others may be uvicorn servers, which close
#: after 5 s; a POST that meets that close is lost and of unknown cost, so we close first.
VENDOR_KEEPALIVE_S = 60.0
OTHER_KEEPALIVE_S = 4.0

#: Raised before any byte of the request has left. ServerDisconnectedError is not among them.
_NEVER_SENT = (
    aiohttp.ClientConnectorError,  # refused, DNS, TLS, certificate, proxy
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
)
_NO_HTTP = (aiohttp.ClientResponseError, httpx2.DecodingError, httpx2.RemoteProtocolError)


def limits(connections: int, *, vendor: bool) -> httpx2.Limits:
    """Room for `connections` at once; idle ones are closed before the other side would."""
    return httpx2.Limits(
        max_connections=connections,
        keepalive_expiry=VENDOR_KEEPALIVE_S if vendor else OTHER_KEEPALIVE_S,
    )


def checked_key(name: str, api_key: str) -> str:
    """The key without blanks around it; SettingError if it cannot stand in a header."""
    key = api_key.strip()
    if not (key.isascii() and key.isprintable()):
        raise SettingError(f"API key of {name}", "***", "a key is one line of plain ASCII")
    return key


class Wire:
    """An open line to one vendor: a client with a pool of connections, an address and headers."""

    def __init__(
        self, http: httpx2.AsyncClient, base_url: httpx2.URL, headers: Mapping[str, object]
    ) -> None:
        self._http = http
        self._base_url = base_url
        # The SDKs mark headers to be left out with an object that is no text.
        texts = {name: value for name, value in headers.items() if isinstance(value, str)}
        self._headers = httpx2.Headers(texts)
        self._urls: dict[str, httpx2.URL] = {}

    async def post(self, path: str, body: bytes, *, timeout_s: float) -> httpx2.Response:
        """The whole response, whatever its status, within `timeout_s`.

        Raises AttemptTimeout, ConnectionLost or InvalidOutput; a cancelled call has its connection
        closed, which is how the vendor learns that nobody waits any more.
        """
        url = self._urls.get(path)
        if url is None:
            url = self._base_url.copy_with(path=self._base_url.path.rstrip("/") + path)
            self._urls[path] = url
        if self._http.is_closed:
            raise ConnectionLost("the provider's client is closed")
        request = httpx2.Request(
            "POST",
            url,
            headers=self._headers,
            content=body,
            # No read timeout: a model may think for minutes before its first byte.
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S}},
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await self._http.send(request)
        except TimeoutError as error:
            # The request may have been answered, and charged, after we stopped listening.
            raise AttemptTimeout(f"no answer within {timeout_s:g} s", billed=None) from error
        except aiohttp.ClientResponseError as error:
            # Raised below, unchained: its repr shows the request's headers, and so the key.
            broken = lost(error)
        except (httpx2.HTTPError, httpx2.InvalidURL, aiohttp.ClientError, OSError) as error:
            raise lost(error) from error
        raise broken

    async def close(self) -> None:
        """All connections are closed; what was in flight fails."""
        await self._http.aclose()


def lost(error: Exception) -> AttemptError:
    """Our error for a fault of the connection, by what aiohttp said, not by httpx2's rendering.

    The SDK's transport calls a server that hung up a connect timeout; the cause below it is right.
    """
    below = error.__cause__
    cause = below if isinstance(below, (aiohttp.ClientError, OSError)) else error
    said = type(cause).__name__
    if isinstance(cause, _NEVER_SENT):
        reason = getattr(cause, "os_error", None)
        if isinstance(reason, OSError):  # asyncio's own text names the address, not the reason
            errno = reason.errno or 0
            said = (os.strerror(errno) if errno > 0 else reason.strerror) or said
        return ConnectionLost(f"the connection could not be opened: {said}", billed=False)
    if isinstance(cause, _NO_HTTP):
        return InvalidOutput(f"the answer is not proper HTTP: {said}", billed=None)
    return ConnectionLost(f"the connection broke: {said}", billed=None)
