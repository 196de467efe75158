"""Opens Redis and the database from Settings; nothing else.

`open_servers` is the one door: it joins the embedded Valkey where no Redis is named, and brings a
SQLite file in the home to the newest tables. An external database is left to `headgate db upgrade`.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry
from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError, OperationalError

from shared import embedded
from shared.database import insert_once, open_engine, reading, writing
from shared.errors import Unreachable
from shared.keys import Keys
from shared.settings import Settings, masked

__all__ = ["Servers", "insert_once", "open_engine", "open_servers", "reading", "writing"]

REDIS_TIMEOUT_S = 5.0
"""How long one command may take before the connection counts as dead (redis-py's own default)."""


def redis_py_url(url: str) -> str:
    """The URL in redis-py's spelling: it says `unix://` where Celery says `redis+socket://`."""
    if not url.startswith("redis+socket://"):
        return url
    parts = urlsplit(url)
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0]
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"unix://{login}{parts.path}?db={database}"


@dataclass(slots=True)
class Servers:
    """Where the servers are; clients and engines are made from it, one per process and kind."""

    settings: Settings
    redis_url: str
    database_url: str
    membership: embedded.Membership | None = None

    @property
    def keys(self) -> Keys:
        """The names of all Redis keys of this installation."""
        return Keys(self.settings.key_prefix)

    @property
    def is_embedded(self) -> bool:
        """True where the Valkey is ours and lives in the home."""
        return self.membership is not None

    def redis_client(self) -> redis.Redis:
        """A blocking client. Repeats a command once after a lost connection, never after a timeout.

        Every script that takes or counts carries an id, so that a repeat counts once.
        """
        return redis.Redis.from_url(
            redis_py_url(self.redis_url),
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=Retry(
                ExponentialBackoff(cap=0.5, base=0.05), 2, supported_errors=(redis.ConnectionError,)
            ),
            health_check_interval=25,
        )

    def async_redis_client(
        self, *, timeout_s: float | None = REDIS_TIMEOUT_S
    ) -> redis.asyncio.Redis:
        """An asyncio client without repeats: its users know what may be sent twice."""
        return redis.asyncio.Redis.from_url(
            redis_py_url(self.redis_url),
            socket_timeout=timeout_s,
            socket_connect_timeout=REDIS_TIMEOUT_S,
            retry=AsyncRetry(NoBackoff(), 0),
            health_check_interval=0,
        )

    def engine(self) -> Engine:
        """A SQLAlchemy engine; `begin()` on SQLite takes the write lock at once."""
        return open_engine(self.database_url)

    def check_redis(self) -> None:
        """Redis answers; raises Unreachable if not."""
        client = self.redis_client()
        try:
            client.ping()
        except redis.RedisError as error:
            raise Unreachable(
                f"Redis at {masked(self.redis_url)}", str(error), "check HEADGATE_REDIS_URL"
            ) from error
        finally:
            client.close()

    def check_database(self) -> None:
        """The database answers and has the newest tables; raises Unreachable if not."""
        from shared import migrate

        engine = self.engine()
        try:
            migrate.require_newest(engine)
        except OperationalError as error:
            raise Unreachable(
                f"the database at {masked(self.database_url)}",
                str(error.orig).strip().splitlines()[0],
                "check HEADGATE_DATABASE_URL",
            ) from error
        finally:
            engine.dispose()

    def close(self) -> None:
        """The embedded Valkey is left; it ends when the last member has gone."""
        if self.membership is not None:
            self.membership.close()
            self.membership = None


def open_servers(settings: Settings) -> Servers:
    """The servers of this installation, joined or named; raises Unreachable.

    A SQLite file is made and brought to the newest tables here, since nobody else would.
    """
    membership = None
    redis_url = settings.redis_url
    if redis_url is None:
        membership = embedded.join(settings.home_path)
        redis_url = membership.url
    database_url = settings.database_url
    if database_url is None:
        settings.home_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        database_url = f"sqlite:///{settings.home_path / 'headgate.db'}"
    servers = Servers(settings, redis_url, database_url, membership)
    if database_url.startswith("sqlite"):
        from shared import migrate

        engine = servers.engine()
        try:
            migrate.upgrade(engine)
        except DatabaseError as error:
            raise Unreachable(
                f"the database at {database_url}",
                str(error.orig),
                "check HEADGATE_DATABASE_URL, and that the file is a SQLite database",
            ) from error
        finally:
            engine.dispose()
    return servers
