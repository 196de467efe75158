"""The gateway's app as a transport of httpx2, by which the vendors' libraries send calls."""

from __future__ import annotations

import asyncio
import atexit
import weakref
from collections.abc import AsyncIterator, Iterator

import httpx2
from starlette.types import ASGIApp

from headgate.producer.client.loop_thread import LoopThread
from headgate.producer.client.per_loop import PerLoop
from headgate.producer.gateway.app import make_app
from headgate.producer.sdk.app_call import AppCall
from headgate.shared.settings import Settings


class LoopGateway:
    """A gateway without a port, for one event loop. It opens its servers at the first call."""

    def __init__(self, settings: Settings) -> None:
        # Who can make this object can read the settings with the servers' passwords: no key is
        # asked of it, as of a caller on loopback where HEADGATE_GATEWAY_OPEN is on.
        app = make_app(settings.model_copy(update={"gateway_open": True}))
        self.app: ASGIApp = app
        self._lifespan = app.router.lifespan_context(app)
        self._starting: asyncio.Task[None] | None = None

    async def started(self) -> ASGIApp:
        """Return the app once it takes calls."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)
        return self.app

    async def close(self) -> None:
        """End the calls and close all connections."""
        if self._starting is not None:
            await self._starting
            await self._lifespan.__aexit__(None, None, None)

    async def _start(self) -> None:
        await self._lifespan.__aenter__()


class AsyncQueueTransport(httpx2.AsyncBaseTransport):
    """Sends calls to a gateway in the same event loop. Many loops may use it at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._gateways: PerLoop[LoopGateway] = PerLoop()

    async def begin(self, request: httpx2.Request, body: bytes) -> tuple[httpx2.Response, AppCall]:
        """Make the call; return its answer without a body, and the call that has the body."""
        gateway = self._gateways.get() or self._gateways.add(LoopGateway(self._settings))
        call = AppCall(await gateway.started(), request, body)
        status, headers = await call.begin()
        return httpx2.Response(status, headers=headers, request=request), call

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Make the call; return its answer, whose body comes while it is read."""
        head, call = await self.begin(request, await request.aread())
        return httpx2.Response(head.status_code, headers=head.headers, stream=_AsyncBody(call))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._gateways.close()


class QueueTransport(httpx2.BaseTransport):
    """Sends calls to a gateway in a thread of this process. Many threads may use it at once."""

    def __init__(self, settings: Settings) -> None:
        self._thread = LoopThread()
        self._waiting = AsyncQueueTransport(settings)
        _open_transports.add(self)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Make the call; return its answer, whose body comes while it is read."""
        head, call = self._thread.run(self._waiting.begin(request, request.read()))
        body = _Body(self._thread, call)
        return httpx2.Response(head.status_code, headers=head.headers, stream=body)

    def close(self) -> None:
        """Close all connections."""
        self._thread.close(self._waiting.aclose())


class _AsyncBody(httpx2.AsyncByteStream):
    """The body of an answer, as it is made."""

    def __init__(self, call: AppCall) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._call.piece()) is not None:
            yield piece

    async def aclose(self) -> None:
        self._call.leave()


class _Body(httpx2.SyncByteStream):
    """The body of an answer, as it is made, for a thread outside of its loop."""

    def __init__(self, thread: LoopThread, call: AppCall) -> None:
        self._thread, self._call = thread, call

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._thread.run(self._call.piece())) is not None:
            yield piece

    def close(self) -> None:
        # Not waited for: garbage of a stream may be collected in the thread of the loop itself.
        self._thread.call(self._call.leave)


_open_transports: weakref.WeakSet[QueueTransport] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for transport in list(_open_transports):
        transport.close()
