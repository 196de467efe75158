"""Opens Redis and the database that the settings name.

`open_servers` joins the embedded Valkey if no Redis is configured, and upgrades the tables of a
SQLite file. Tables in PostgreSQL are upgraded only by `headgate db upgrade`.
"""

from __future__ import annotations

from dataclasses import dataclass

import redis
import redis.asyncio
from sqlalchemy import Engine

from headgate.shared import redis_url as redis_urls
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine, reaching, sqlite_url
from headgate.shared.errors import SettingError
from headgate.shared.redis_url import Address
from headgate.shared.servers import embedded, redis_check
from headgate.shared.servers import redis_client as redis_clients
from headgate.shared.servers.redis_client import REDIS_TIMEOUT_S
from headgate.shared.settings import Settings


@dataclass(slots=True)
class Servers:
    """The addresses of the servers; it makes clients and engines, one per process and kind."""

    settings: Settings
    redis_url: str
    database_url: str
    membership: embedded.Membership | None = None

    @property
    def keys(self) -> Keys:
        """The names of all Redis keys of this installation."""
        return Keys(self.settings.key_prefix, self.settings.sub_lists)

    @property
    def is_embedded(self) -> bool:
        """Whether the Redis is the embedded Valkey of the home."""
        return self.membership is not None

    @property
    def address(self) -> Address:
        """The address of Redis, in parts."""
        return redis_urls.read(self.redis_url)

    def redis_client(self) -> redis.Redis:
        """Return a blocking client; see redis_client.blocking."""
        return redis_clients.blocking(self.address)

    def async_redis_client(
        self, *, timeout_s: float | None = REDIS_TIMEOUT_S
    ) -> redis.asyncio.Redis:
        """Return an asyncio client; see redis_client.on_asyncio."""
        return redis_clients.on_asyncio(self.address, timeout_s=timeout_s)

    def engine(self) -> Engine:
        """Return a SQLAlchemy engine; on SQLite `begin()` takes the write lock at once."""
        return open_engine(self.database_url, self.settings.database_timeout_s)

    def check_redis(self, client: redis.Redis | None = None, *, to_work: bool = False) -> None:
        """Check that Redis can be used; raise Unfit, or Unreachable if it does not answer.

        `to_work`: check also that this user may send all commands of a worker.
        """
        asked = client or self.redis_client()
        try:
            redis_check.require(asked, self.address, self.redis_url)
            if to_work:
                redis_check.require_commands(asked, self.address, self.keys, self.redis_url)
        finally:
            if client is None:
                asked.close()

    def check_database(self) -> None:
        """Check that the database answers and has tables that fit; raise Unreachable."""
        from headgate.shared.database import migrate

        engine = self.engine()
        try:
            with reaching(self.database_url):
                migrate.require_fit(engine)
        finally:
            engine.dispose()

    def close(self) -> None:
        """Leave the embedded Valkey; it ends when its last member has gone."""
        if self.membership is not None:
            self.membership.close()
            self.membership = None


def open_servers(settings: Settings, *, record: bool = True) -> Servers:
    """Return the servers of this installation.

    Raise EmbeddedFailed or Unreachable, or SettingError for a SQLite file with a remote Redis.
    Create a SQLite file and upgrade its tables. `record=False`: leave the database alone, for
    callers that need only Redis.
    """
    if record:
        _require_one_machine(settings)
    membership = None
    redis_url = settings.redis_url
    if redis_url is None:
        membership = embedded.join(settings.home_path)
        redis_url = membership.url
    database_url = settings.database_url
    if database_url is None:
        if record:
            settings.home_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        database_url = sqlite_url(settings.home_path / "headgate.db")
    servers = Servers(settings, redis_url, database_url, membership)
    if record and database_url.startswith("sqlite"):
        from headgate.shared.database import migrate

        engine = servers.engine()
        try:
            with reaching(database_url):
                migrate.upgrade(engine)
        finally:
            engine.dispose()
    return servers


def _require_one_machine(settings: Settings) -> None:
    """Raise SettingError if Redis is shared by machines that cannot share the SQLite file.

    Each machine would keep a record of its own, run the jobs of the others again and pay twice.
    """
    redis_url, database_url = settings.redis_url, settings.database_url or "sqlite"
    if redis_url is None or settings.sqlite_shared or not database_url.startswith("sqlite"):
        return
    if not redis_urls.read(redis_url).is_of_this_machine:
        remedy = (
            "is on another machine, but the database is a SQLite file of this one; set "
            "HEADGATE_DATABASE_URL to a PostgreSQL database, or HEADGATE_SQLITE_SHARED=1 if no "
            "other machine uses this Redis"
        )
        raise SettingError("HEADGATE_REDIS_URL", redis_urls.masked(redis_url), remedy)
