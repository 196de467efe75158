"""Makes redis-py clients for an Address, blocking or asyncio; they follow a sentinel's master.

After a failover a demoted master answers READONLY. redis-py closes the connection then only if it
uses sentinels. The connections here always do: an address can move without sentinels, too.

uvloop raises RuntimeError for a write to a connection that the server has just closed. Here it is a
ConnectionError, as it is on asyncio's own loop.
"""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.connection import AbstractConnection as AsyncAbstractConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import ReadOnlyError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from headgate.shared.redis_url import Address

REDIS_TIMEOUT_S = 5.0
"""How long one command may take before the connection counts as dead (redis-py's own default)."""

SENTINEL_TIMEOUT_S = 1.0
"""How long one sentinel may take to name the master; then the next one is asked."""

DEMOTED = "it is a read-only replica now"

CLOSED = "the handler is closed"
"""How the RuntimeError of uvloop ends (`UVHandle._ensure_alive`)."""


class _Follows(AbstractConnection):
    """A connection that closes when its server has become a replica."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return the reply; raise ConnectionError in place of ReadOnlyError."""
        try:
            return super().read_response(*args, **kwargs)
        except ReadOnlyError as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError(DEMOTED) from error


class _AsyncFollows(AsyncAbstractConnection):
    """The same on asyncio."""

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Return the reply; raise ConnectionError in place of ReadOnlyError."""
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError as error:
            await self.disconnect()
            raise redis.ConnectionError(DEMOTED) from error


class _AsyncLost(AsyncAbstractConnection):
    """A connection on uvloop whose loss is a ConnectionError in every case."""

    async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
        """Send the command; raise ConnectionError if the transport is closed."""
        try:
            await super().send_packed_command(*args, **kwargs)
        except RuntimeError as error:
            if CLOSED not in str(error):
                raise
            await self.disconnect(nowait=True)
            raise redis.ConnectionError("Connection closed by server.") from error


class _Tcp(_Follows, redis.Connection):
    pass


class _Tls(_Follows, redis.SSLConnection):
    pass


class _Unix(_Follows, redis.UnixDomainSocketConnection):
    pass


class _AsyncTcp(_AsyncFollows, _AsyncLost, redis.asyncio.Connection):
    pass


class _AsyncTls(_AsyncFollows, _AsyncLost, redis.asyncio.SSLConnection):
    pass


class _AsyncUnix(_AsyncFollows, _AsyncLost, redis.asyncio.UnixDomainSocketConnection):
    pass


class _AsyncMaster(_AsyncLost, async_sentinel.SentinelManagedConnection):
    pass


class _AsyncTlsMaster(_AsyncLost, async_sentinel.SentinelManagedSSLConnection):
    pass


class _MasterPool(SentinelConnectionPool):
    """Connections to the master; it closes those to the sentinels as well."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections; the next use opens new ones."""
        super().disconnect(inuse_connections)
        self.sentinel_manager.close()


class _AsyncMasterPool(async_sentinel.SentinelConnectionPool):
    """The same on asyncio."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close all connections; the next use opens new ones."""
        await super().disconnect(inuse_connections)
        await self.sentinel_manager.aclose()


def blocking(address: Address) -> redis.Redis:
    """Return a blocking client.

    It repeats a command twice after a lost connection, never after a timeout. Scripts that count
    carry an id, so a repeated one counts once.
    """
    backoff = ExponentialBackoff(cap=0.5, base=0.05)
    options: dict[str, Any] = {
        "socket_timeout": REDIS_TIMEOUT_S,
        "retry": Retry(backoff, 2, supported_errors=(redis.ConnectionError,)),
        "health_check_interval": 25,
        **_login(address),
    }
    if address.master_name is not None:
        options["connection_class"] = (
            SentinelManagedSSLConnection if address.tls else SentinelManagedConnection
        )
        pool: redis.ConnectionPool = _MasterPool(  # type: ignore[no-untyped-call]
            address.master_name, sentinels(address), **options, **_endpoint(address)
        )
    else:
        kind = _Unix if address.path else _Tls if address.tls else _Tcp
        pool = redis.ConnectionPool(connection_class=kind, **options, **_endpoint(address))
    return redis.Redis.from_pool(pool)


def on_asyncio(address: Address, *, timeout_s: float | None) -> redis.asyncio.Redis:
    """Return an asyncio client without repeats: its callers know what may be sent twice."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "retry": AsyncRetry(NoBackoff(), 0),
        "health_check_interval": 0,
        **_login(address),
    }
    if address.master_name is not None:
        options["connection_class"] = _AsyncTlsMaster if address.tls else _AsyncMaster
        found_sentinels = async_sentinel.Sentinel(  # type: ignore[no-untyped-call]
            address.hosts, sentinel_kwargs=sentinel_options(address, AsyncRetry(NoBackoff(), 0))
        )
        pool: redis.asyncio.ConnectionPool = _AsyncMasterPool(  # type: ignore[no-untyped-call]
            address.master_name, found_sentinels, **options, **_endpoint(address)
        )
    else:
        kind = _AsyncUnix if address.path else _AsyncTls if address.tls else _AsyncTcp
        pool = redis.asyncio.ConnectionPool(connection_class=kind, **options, **_endpoint(address))
    return redis.asyncio.Redis.from_pool(pool)


def sentinels(address: Address) -> Sentinel:
    """Return a client of the sentinels, which asks one after the other."""
    return Sentinel(address.hosts, sentinel_kwargs=sentinel_options(address, Retry(NoBackoff(), 0)))  # type: ignore[no-untyped-call]


def sentinel_options(address: Address, retry: Retry | AsyncRetry) -> dict[str, Any]:
    """Return the connection options of a sentinel, also for kombu and Celery's result backend."""
    return {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "retry": retry,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        **({"ssl": True, **address.tls.options()} if address.tls else {}),
    }


def _login(address: Address) -> dict[str, Any]:
    return {
        "username": address.username,
        "password": address.password,
        "db": address.database,
    }


def _endpoint(address: Address) -> dict[str, Any]:
    """Return the address of the server, unless sentinels know it, and the connection options."""
    if address.path:
        return {"path": address.path, "socket_connect_timeout": REDIS_TIMEOUT_S}
    options: dict[str, Any] = {
        "socket_connect_timeout": REDIS_TIMEOUT_S,
        "socket_keepalive": True,
        # With redis-py 8's default (enabled), it uses connections that died while they were idle.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        **(address.tls.options() if address.tls else {}),
    }
    if address.master_name is None:
        [(options["host"], options["port"])] = address.hosts
    return options
