"""What every request passes before its address is looked at: its host, its origin, CORS."""

from __future__ import annotations

from functools import partial

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headgate.producer.callers.doorkeeper import CorsHeaders, Doorkeeper
from headgate.producer.callers.load import load_origins
from headgate.producer.callers.origins import KeyOrigins
from headgate.producer.callers.refused import KeyRefused
from headgate.producer.gateway.answering import dialect_of, door_of
from headgate.producer.gateway.calls.call import new_request_id
from headgate.producer.gateway.door import Door
from headgate.shared.settings import Settings


class Entrance:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._keeper = Doorkeeper.of(settings)
        self._key_origins: KeyOrigins | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, request = Headers(scope=scope), Request(scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            self._keeper.require_local(host, origin)
        except KeyRefused as error:
            response = door_of(request).refused(dialect_of(request), error, new_request_id())
            await response(scope, receive, send)
            return
        if origin is None:
            await self._app(scope, receive, send)
            return
        of_keys = await self._origins_of_keys(door_of(request))
        wanted = headers.get("access-control-request-headers", "")
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            answer = self._keeper.preflight(host, origin, wanted, of_keys)
            await Response(status_code=204, headers=answer)(scope, receive, send)
            return
        cors = self._keeper.cors_headers(host, origin, of_keys)
        await self._app(scope, receive, partial(_with_headers, send, cors))

    async def _origins_of_keys(self, door: Door) -> frozenset[str]:
        if self._keeper.is_open:
            return frozenset()
        if self._key_origins is None:
            self._key_origins = KeyOrigins(partial(door.operations.report, load_origins))
        return await self._key_origins.get()


async def _with_headers(send: Send, cors: CorsHeaders, message: Message) -> None:
    """Send the message of an answer, with these headers if it begins the answer."""
    if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(cors)
    await send(message)
