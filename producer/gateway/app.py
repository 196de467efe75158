"""The gateway as an ASGI app, which `headgate gateway` serves.

app = make_app(settings)       for another ASGI server than ours
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.client.operations import Operations
from headgate.producer.gateway.answering import dialect_of
from headgate.producer.gateway.calls.call import new_request_id
from headgate.producer.gateway.calls.faults import CallFault
from headgate.producer.gateway.calls.replies import refusal
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.routes import routes
from headgate.producer.gateway.serving.entrance import Entrance
from headgate.shared.settings import Settings


def make_app(settings: Settings) -> Starlette:
    """Return the gateway of these settings. Its servers are opened at the first call."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        door = app.state.door = Door(settings, Operations(settings))
        try:
            yield
        finally:
            await door.close()

    app = Starlette(
        routes=routes(), lifespan=lifespan, exception_handlers={HTTPException: _no_such_address}
    )
    app.add_middleware(Entrance, settings=settings)
    return app


async def _no_such_address(request: Request, error: Exception) -> Response:
    """Answer 404 and 405 in the caller's dialect."""
    where = f"{request.method} {request.url.path[:200]}"
    fault = CallFault("not_found", f"no such address: {where}")
    if isinstance(error, HTTPException) and error.status_code == 405:
        fault = CallFault("method_not_allowed", f"no such method here: {where}")
    response = refusal(dialect_of(request), fault, new_request_id())
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)
    return response
