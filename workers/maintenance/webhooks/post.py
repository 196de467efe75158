"""Posts an event to a webhook, and reads little of the answer."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import aiohttp
import httpx2
from aiohttp.abc import AbstractResolver
from yarl import URL

from headgate.shared.webhook_target import AllowedTargets, Kind
from headgate.workers.maintenance.webhooks.dial import (
    AddressInfo,
    Dial,
    ForbiddenAddress,
    ThreadedNames,
    open_socket,
)
from headgate.workers.policy import retry_after
from headgate.workers.policy.webhook_retry import WebhookReply

TIMEOUT_S = 30.0
"""How long a receiver may take for its answer, from the look at its name on."""

CONNECT_S = 10.0

ANSWER_BYTES = 4096
"""How much of an answer is read, so that its connection can be used again."""

ANSWER_S = 1.0
"""How long the rest of an answer is waited for. Its status has come then, and decides."""

IDLE_S = 15.0
"""How long an unused connection stays open."""


class WebhookPost:
    """The connections to webhooks. Create it on the loop that uses it; it opens them when asked."""

    def __init__(
        self, allowed: AllowedTargets, *, names: AbstractResolver | None = None,
        trusted: ssl.SSLContext | None = None, timeout_s: float = TIMEOUT_S,
        opened: Callable[[AddressInfo], socket.socket] = open_socket,
    ) -> None:  # fmt: skip
        self._allowed = allowed
        self._names = names
        self._trusted = trusted
        self._timeout_s = timeout_s
        self._opened = opened
        self._sessions: dict[Kind, aiohttp.ClientSession] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> WebhookReply:
        """Post the body; return the reply. A fault of the connection is a reply without status."""
        try:
            target = URL(url)
            kind = self._allowed.kind_of(target.scheme, target.raw_host or "")
            # A redirect would name an address that nobody has checked.
            async with self._session(kind).post(
                target, data=body.encode(), headers=headers, allow_redirects=False
            ) as answer:
                await _read_some(answer)
                return WebhookReply(answer.status, retry_after_ms=_wait_ms(answer))
        except TimeoutError as error:
            is_connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            what = "no connection" if is_connecting else "no answer"
            return WebhookReply(
                None, f"{what} within {CONNECT_S if is_connecting else self._timeout_s:g} s"
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return WebhookReply(None, _reason(error))

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        if self._names is not None:
            await self._names.close()

    def _session(self, kind: Kind) -> aiohttp.ClientSession:
        """Return the connections of this kind; those of another kind must not serve its hosts."""
        session = self._sessions.get(kind)
        if session is None:
            if self._names is None:
                self._names = ThreadedNames()
            connector = aiohttp.TCPConnector(
                resolver=self._names,
                socket_factory=Dial(self._allowed, kind, self._opened),
                ssl=True if kind == "plain" else self._context(),
                limit=0,  # whoever posts bounds how many
                keepalive_timeout=IDLE_S,
            )
            session = self._sessions[kind] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=ANSWER_BYTES,
                trust_env=False,  # a proxy would dial for us, unchecked
            )
        return session

    def _context(self) -> ssl.SSLContext:
        if self._trusted is None:
            self._trusted = httpx2.create_ssl_context()
        return self._trusted


async def _read_some(answer: aiohttp.ClientResponse) -> None:
    """Read a short answer to its end; close the connection of any other."""
    left = ANSWER_BYTES
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(ANSWER_S):
            while left > 0 and not answer.content.at_eof():
                left -= len(await answer.content.read(left))
    if not answer.content.at_eof():
        answer.close()


def _wait_ms(answer: aiohttp.ClientResponse) -> int | None:
    if answer.status not in (429, 503):
        return None
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return retry_after.read(headers, time.time()).wait_ms


def _reason(error: Exception) -> str:
    """Return what went wrong, without the URL, which may hold a secret."""
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed, or the certificate is not trusted"
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ForbiddenAddress):
        return f"{cause}; see HEADGATE_WEBHOOK_ALLOW"
    if isinstance(cause, socket.gaierror) or isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host has no address"
    if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
        return f"the connection failed: {os.strerror(cause.errno)}"
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return "its URL cannot be used"
    return f"the connection failed: {type(error).__name__}"
