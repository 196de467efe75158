"""Serve the gateway with uvicorn."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import ssl
from functools import partial

import uvicorn

from headgate.producer.callers.doorkeeper import require_loopback
from headgate.producer.gateway.app import make_app
from headgate.producer.gateway.protocol import BoundedProtocol
from headgate.shared.errors import SettingError, WrongUse
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.gateway")

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

IDLE_S = 75
"""How long a connection stays open without a request, a second longer than most proxies keep it."""


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
