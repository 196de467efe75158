"""What every request passes before its address is looked at: its host, its origin, CORS."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from headgate.shared.settings import Settings


class Entrance:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it here."""
        await self._app(scope, receive, send)
