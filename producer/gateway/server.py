"""Serve the gateway with uvicorn."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.producer.callers.doorkeeper import require_loopback
from headgate.producer.gateway.app import make_app
from headgate.shared.errors import SettingError, WrongUse
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.gateway")

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

MOST_HEADER_BYTES = 64 * 1024
"""The most that the headers of one request may take."""

IDLE_S = 75
"""How long a connection stays open without a request, a second longer than most proxies keep it."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers are bounded in size and in time."""

    headers_within_s = 60.0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._header_bytes = 0
        self._in_headers = True
        self._late = self.loop.call_later(self.headers_within_s, self._refuse_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._late.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers; close the connection of endless ones."""
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MOST_HEADER_BYTES:
            self._close_with(431, "Request Header Fields Too Large")

    def on_message_begin(self) -> None:
        """Start the clock of a request's headers."""
        super().on_message_begin()
        self._in_headers, self._header_bytes = True, 0
        self._late.cancel()
        self._late = self.loop.call_later(self.headers_within_s, self._refuse_late)

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own."""
        self._late.cancel()
        self._in_headers = False
        super().on_headers_complete()

    def _refuse_late(self) -> None:
        if self._in_headers:
            self._close_with(408, "Request Timeout")

    def _close_with(self, status: int, reason: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            head = f"HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(head.encode())
            self.transport.close()


class GatewayServer(uvicorn.Server):
    """A server that reads its certificate anew at SIGHUP, and tells its door that it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and follow SIGHUP."""
        await super().startup(sockets)
        if self.config.ssl is not None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, partial(_read_again, self.config))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new calls, and wait for the open ones as long as HEADGATE_DRAIN_S says."""
        self.config.app.state.door.departures.stopping = True  # type: ignore[union-attr]  # our own app
        await super().shutdown(sockets)


def _read_again(config: uvicorn.Config) -> None:
    """Read certificate and key anew; connections that are open keep theirs."""
    if config.ssl is not None and config.ssl_certfile is not None:
        try:
            config.ssl.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
        except (ssl.SSLError, OSError) as error:
            log.warning("the certificate was not read anew: %s", error)


def config_of(chosen: Settings, *, host: str, port: int) -> uvicorn.Config:
    """Return how to serve; raise WrongUse and SettingError for what cannot be."""
    if chosen.gateway_open:
        require_loopback(host)
    for name, path in (("CERT", chosen.gateway_tls_cert), ("KEY", chosen.gateway_tls_key)):
        if path is not None and not os.access(path, os.R_OK):
            raise SettingError(f"HEADGATE_GATEWAY_TLS_{name}", str(path), "name a readable file")
    bounds = {"headers_within_s": chosen.gateway_body_s}
    config = uvicorn.Config(
        make_app(chosen),
        host=host,
        port=port,
        loop="uvloop",
        http=type("BoundedProtocol", (BoundedProtocol,), bounds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # ours are believed of HEADGATE_GATEWAY_PROXIES only
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=max(1, round(chosen.drain_s)),
        ssl_certfile=chosen.gateway_tls_cert,
        ssl_keyfile=chosen.gateway_tls_key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        where = str(chosen.gateway_tls_cert)
        raise SettingError("HEADGATE_GATEWAY_TLS_CERT", where, f"cannot be used: {error}") from None
    return config


def serve(chosen: Settings, *, host: str, port: int, is_shared: bool = False) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code.

    `is_shared`: other processes of the same gateway listen on the port, too.
    """
    logging.basicConfig(level=chosen.log_level, format=LOG_LINE)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = config_of(chosen, host=host, port=port)
    bound = bind(host, port, is_shared=is_shared)
    server = GatewayServer(config)
    ends: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it got again at its end
        signal.signal(number, lambda got, _: ends.append(got))
    server.run(sockets=[bound])
    return 130 if signal.SIGINT in ends else 0


def bind(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Return a socket with this address; raise WrongUse if it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        remedy = f"cannot be used ({reason}); name another port with --port"
        raise WrongUse("--port", port, remedy) from error
    return bound
