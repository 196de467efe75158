"""The connections of one client to its gateway in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from headgate.producer.client.http.address import GatewayAddress
from headgate.producer.client.http.refusals import AGAIN, NO_GATEWAY, is_passing, refusal_of
from headgate.shared.errors import Unfit, Unreachable
from headgate.shared.job.encoding import loads

CALL_S = 60.0
"""How long one call may take, without the time that it asks the gateway to wait."""

CONNECT_S = 10.0

PAUSES_S = (0.1, 0.4, 1.2)
"""The waits before a call that found no gateway is sent again."""

AGAIN_WITHIN_S = 15.0
"""A call is not sent again after so many seconds."""

PERHAPS_DONE = (
    "perhaps it is on record: look with `jobs` before you submit again, or give an "
    "idempotency_key, with which you may submit again in any case"
)
"""The remedy where a submit was sent, also again, and no answer came."""

AT_ONCE = 100
"""So many calls of one client are open at once; streams and long polls not counted."""

IDLE_S = 60.0
"""After so many idle seconds a connection is closed, before the gateway closes it (75 s)."""

LOST = (aiohttp.ClientError, OSError, TimeoutError)
"""What is raised when a connection cannot be made, or is lost."""

_NOT_TRUSTED = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError)


_guards: set[asyncio.Task[None]] = set()
"""A loop does not keep its tasks: one that only waits could be collected as garbage."""


class GatewayAnswer(NamedTuple):
    """A success of the gateway, with its decoded JSON."""

    status: int
    body: Any


class Connections:
    """All calls of one client in one event loop. They share connections, which stay open."""

    def __init__(self, address: GatewayAddress) -> None:
        self.address = address
        self.is_closed = False
        # Made now, because aiohttp reads SSL_CERT_FILE only once, when it is imported.
        trusted = ssl.create_default_context() if address.url.startswith("https") else True
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_S, ssl=trusted)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": "headgate-python", "accept": "application/json"},
            trust_env=False,
        )
        self._places = asyncio.Semaphore(AT_ONCE)
        self._guard = asyncio.create_task(self._close_with_loop(), name="headgate connections")
        _guards.add(self._guard)
        self._guard.add_done_callback(_guards.discard)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0,
        may_repeat: bool = True,
        takes: int = 200,
        submits: bool = False,
    ) -> GatewayAnswer:
        """Return the answer to one call; raise what the gateway refuses it with.

        `wait_s`: how long the gateway was asked to wait. `may_repeat`: the call may be sent again
        after it has perhaps been done. `takes`: another status that is no refusal. Raises
        Unreachable if no answer came; if the call `submits` and may have been done, it says so.
        """
        began = time.monotonic()
        pauses = iter(PAUSES_S)
        once = method, path, body, query, headers, CALL_S + wait_s
        was_sent = False
        while True:
            found = await self._tried(once, may_repeat, takes)
            if isinstance(found, GatewayAnswer):
                return found
            was_sent = was_sent or found.was_sent
            self.require_open()
            pause_s = next(pauses, None)
            if pause_s is None or time.monotonic() - began > AGAIN_WITHIN_S:
                fault = found.fault
                if submits and was_sent:
                    fault = Unreachable(fault.server, fault.reason, PERHAPS_DONE)
                raise fault from found.fault.__cause__
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  no secret

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], silence_s: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """Give the bytes of an answer that comes bit by bit.

        `silence_s`: after so many seconds without a byte the connection counts as lost. Raises
        Unreachable, and what the gateway refuses the call with.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
        request = self._request("GET", path, None, query, {"accept": "text/event-stream"}, timeout)
        async with request as response:
            if response.status != 200:
                body = _decoded(await response.read())
                raise refusal_of(self.address.name, response.status, response.headers, body)
            yield response.content

    def require_open(self) -> None:
        """Raise CancelledError once these connections are closed."""
        if self.is_closed:
            raise asyncio.CancelledError

    def lost(self, error: BaseException) -> Unreachable:
        """Return the error for a connection that was lost."""
        return self._fault_of(error)

    async def close(self) -> None:
        """Close all connections."""
        self.is_closed = True
        self._guard.cancel()
        await asyncio.gather(self._guard, return_exceptions=True)

    async def _close_with_loop(self) -> None:
        """Close the connections when this is cancelled: by `close`, or by a loop that ends."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.is_closed = True
            await self._session.close()

    async def _tried(
        self, once: _Once, may_repeat: bool, takes: int
    ) -> GatewayAnswer | _PassingFault:
        """Return the answer, or a fault after which the call is sent again; raise any other."""
        try:
            found = await self._once(*once)
        except LOST as error:
            lost, was_sent = self._fault_of(error), not _was_not_sent(error)
            if isinstance(lost, Unfit) or (was_sent and not may_repeat):
                raise lost from error
            lost.__cause__ = error
            return _PassingFault(lost, was_sent)
        if found.status < 300 or (found.status == takes and found.body):
            return self._answer_in(found)
        fault = refusal_of(self.address.name, found.status, found.headers, found.body)
        if may_repeat and is_passing(found.status, found.body) and isinstance(fault, Unreachable):
            return _PassingFault(fault, found.status != 503)
        raise fault

    async def _once(
        self, method: str, path: str, body: bytes | None, query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None, most_s: float,
    ) -> _Reply:  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=most_s, sock_connect=CONNECT_S)
        self.require_open()
        async with self._places if most_s <= CALL_S else contextlib.nullcontext():
            request = self._request(method, path, body, query, headers, timeout)
            async with request as response:
                data = await response.read()
                return _Reply(response.status, response.headers, _decoded(data))

    def _request(
        self, method: str, path: str, body: bytes | None, query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None, timeout: aiohttp.ClientTimeout,
    ) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]:  # fmt: skip
        given = {**(headers or {}), **self.address.headers()}
        if body is not None:
            given["content-type"] = "application/json"
        url = URL(self.address.url + path, encoded=True)
        return self._session.request(
            method, url.with_query(query) if query else url, data=body, headers=given,
            timeout=timeout, allow_redirects=False, proxy=self.address.proxy,
        )  # fmt: skip

    def _answer_in(self, found: _Reply) -> GatewayAnswer:
        """Return the answer; raise Unfit if it is no object of JSON, as all of a gateway's are."""
        if not isinstance(found.body, dict):
            reason = f"it answered with status {found.status} and no JSON"
            raise Unfit(self.address.name, reason, NO_GATEWAY)
        return GatewayAnswer(found.status, found.body)

    def _fault_of(self, error: BaseException) -> Unreachable:
        name = self.address.name
        if isinstance(error, _NOT_TRUSTED):
            remedy = "check the address; SSL_CERT_FILE names the file of an authority of your own"
            return Unfit(name, f"its certificate is not trusted ({type(error).__name__})", remedy)
        if isinstance(error, TimeoutError):
            return Unreachable(name, "it did not answer in time", AGAIN)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
        return Unreachable(name, reason or type(error).__name__, AGAIN)


_Once = tuple[str, str, bytes | None, Mapping[str, str] | None, Mapping[str, str] | None, float]
"""The arguments of `_once`."""


class _PassingFault(NamedTuple):
    """Why there is no answer yet. `was_sent`: the call may have been done."""

    fault: Unreachable
    was_sent: bool


class _Reply(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: Any


def _decoded(data: bytes) -> Any:
    """Return the decoded JSON; None if it is none, such as the page of a proxy."""
    try:
        return loads(data)
    except json.JSONDecodeError:  # orjson's own error is one, too
        return None


def _was_not_sent(error: BaseException) -> bool:
    """Return whether the call has surely not reached the gateway."""
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
