"""Serve the gateway with uvicorn."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

import uvicorn

from headgate.producer.callers.doorkeeper import require_loopback
from headgate.producer.gateway.app import make_app
from headgate.producer.gateway.serving.protocol import BoundedProtocol
from headgate.shared.errors import SettingError, WrongUse
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.gateway")

LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

IDLE_S = 75
"""How long a connection stays open without a request, a second longer than most proxies keep it."""


AT_ONCE_S = 2.0
"""How long a gateway that is to stop at once may take to tell its callers."""


class GatewayServer(uvicorn.Server):
    """A server that reads its certificate anew at SIGHUP, and tells its door that it stops."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and follow SIGHUP."""
        await super().startup(sockets)
        if self.config.ssl is not None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, partial(_read_again, self.config))
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, self.handle_exit)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new calls, and wait for the open ones as long as HEADGATE_DRAIN_S says."""
        self.config.app.state.door.departures.stop()  # type: ignore[union-attr]  # our own app
        await super().shutdown(sockets)
        if self.force_exit:
            tasks = set(self.server_state.tasks)
            for task in tasks:
                task.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(AT_ONCE_S):
                    if tasks:
                        await asyncio.wait(tasks)
                    await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop when the open calls have ended; stop at once at a second signal."""
        self.force_exit = self.should_exit
        super().handle_exit(sig, frame)


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
        raise _wrong_file(chosen, error) from None
    return config


def _wrong_file(chosen: Settings, error: OSError) -> SettingError:
    """Return the error that names the file of the certificate or of the key."""
    name, path = "HEADGATE_GATEWAY_TLS_CERT", chosen.gateway_tls_cert
    if chosen.gateway_tls_key is not None:
        with suppress(OSError):
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
            name, path = "HEADGATE_GATEWAY_TLS_KEY", chosen.gateway_tls_key
    return SettingError(name, str(path), f"cannot be used: {error}")


def serve(
    chosen: Settings,
    *,
    host: str,
    port: int,
    is_shared: bool = False,
    announce: Callable[[], None] = lambda: None,
) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code.

    `is_shared`: other processes of the same gateway listen on the port, too. `announce` is called
    once the port is ours.
    """
    logging.basicConfig(level=chosen.log_level, format=LOG_LINE)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    config = config_of(chosen, host=host, port=port)
    bound = bind(host, port, is_shared=is_shared)
    announce()
    server = GatewayServer(config)
    ends: list[int] = []

    def stop(number: int, _: object) -> None:
        ends.append(number)
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises what it got again at its end
        signal.signal(number, stop)
    server.run(sockets=[bound])
    return 130 if signal.SIGINT in ends else 0


_NO_HOST = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def bind(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Return a socket with this address; raise WrongUse if it cannot be had."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError, UnicodeError) as error:
        bound.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        is_unknown = isinstance(error, socket.gaierror | UnicodeError)
        if is_unknown or getattr(error, "errno", 0) in _NO_HOST:
            remedy = f"cannot be used ({reason}); name an address of this machine"
            raise WrongUse("--host", host, remedy) from error
        remedy = f"cannot be used ({reason}); name another port with --port"
        raise WrongUse("--port", port, remedy) from error
    return bound
