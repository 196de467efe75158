"""What one producer process holds of an installation: servers, engine, Redis and catalog.

It is opened at the first use, closed by `close`, and opened anew in a forked child.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import redis
from sqlalchemy import Engine

from headgate.shared import settings
from headgate.shared.admission import tiers
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog import catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.database import migrate
from headgate.shared.database.engine import (
    open_engine,
    reaching,
    reason,
    sqlite_url,
    without_password,
)
from headgate.shared.errors import CatalogError, SettingError, Unfit, Unreachable
from headgate.shared.servers import redis_check, same_database
from headgate.shared.servers import servers as connections
from headgate.shared.servers.embedded import EmbeddedFailed
from headgate.shared.servers.same_database import DatabaseName
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings, masked

log = logging.getLogger("headgate.catalog")

CLOSE_WITHIN_S = 5.0

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Installation:
    """Open servers of one process. `redis` and `engine` block, and many threads may use them.

    `database` names the database with its id. `version` counts the reloads of the catalog that this
    process has followed.
    """

    servers: Servers
    engine: Engine
    redis: redis.Redis
    catalog: Catalog
    database: DatabaseName | None = None
    version: int = 0

    @property
    def settings(self) -> Settings:
        """The settings that it was opened with."""
        return self.servers.settings

    @property
    def keys(self) -> Keys:
        """The names of all Redis keys."""
        return self.servers.keys

    @property
    def redis_name(self) -> str:
        """The Redis as an error may name it: without a password."""
        return f"Redis at {masked(self.servers.redis_url)}"

    @property
    def database_name(self) -> str:
        """The database as an error may name it: without a password."""
        return f"the database at {masked(self.servers.database_url)}"

    def version_in_force(self, *, to_write: bool = False) -> int:
        """Read how often the catalog was reloaded. It is one round trip to Redis.

        Raises SettingError if Redis belongs to another database by now. `to_write`: also raises
        RedisError if Redis takes no writes now.
        """
        with self.redis.pipeline(transaction=False) as calls:
            calls.mget(self.keys.version(), self.keys.database())
            if to_write:
                # It changes nothing, and a Redis that is full or read-only refuses it.
                calls.zadd(self.keys.due(), {"": 0}, xx=True)
            replies: list[Any] = calls.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        found = replies[0]
        if self.database is not None:
            owner = same_database.decode(found[1])
            owner = owner or same_database.claim(self.redis, self.keys, self.database)
            same_database.require(self.servers, self.database, owner)
        return int(found[0] or 0)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Turn errors of the servers inside the block into Unreachable, without passwords."""
        try:
            with reaching(self.servers.database_url):
                yield
        except redis.RedisError as error:
            raise redis_check.fault(error, self.servers.address, self.servers.redis_url) from error

    def reason(self, error: BaseException) -> str:
        """Say in one line, without passwords, what went wrong at a server."""
        if isinstance(error, redis.RedisError):
            return redis_check.reason(error, self.servers.address)
        return without_password(reason(error), self.servers.database_url)

    def close(self) -> None:
        """Close all connections and leave the embedded server."""
        self.redis.close()
        self.engine.dispose()
        self.servers.close()


def require_home(chosen: Settings) -> None:
    """Make the home folder if it is missing.

    Raises SettingError if the folder cannot be made or written, Unreachable if the disk is full.
    """
    home = chosen.home_path
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "it cannot be written")
    except OSError as error:
        if error.errno in _FULL:
            raise Unreachable(f"the home {home}", "the disk is full", "free some space") from error
        reason = "there is a file" if isinstance(error, FileExistsError) else error.strerror
        remedy = "set HEADGATE_HOME to a folder that you can write"
        raise _home_unusable(chosen, f"cannot be used: {reason}", remedy) from error


def _home_unusable(chosen: Settings, what: str, remedy: str) -> SettingError:
    return SettingError("HEADGATE_HOME", str(chosen.home), f"{what}; {remedy}")


def open_installation(
    chosen: Settings | None = None, *, any_database: bool = False
) -> Installation:
    """Open the servers that the settings name, and check that they answer and fit together.

    Redis is asked before anything is written, so a wrong address costs no job: a job's row is
    written before its message. Raises SettingError, CatalogError and Unreachable. `any_database`:
    open it even if Redis belongs to another database.
    """
    chosen = chosen or settings.load()
    models = catalog.load(chosen.catalog)
    # A bad HEADGATE_TIERS stops the process here, before a server is opened.
    tiers.source(chosen.tiers, models, lambda: engine)
    if chosen.redis_url is None or chosen.database_url is None:
        require_home(chosen)
    servers = _open_servers(chosen)
    engine = servers.engine()
    client = servers.redis_client()
    opened = Installation(servers, engine, client, models)
    try:
        servers.check_redis(client)
        with opened.reaching():
            migrate.require_fit(engine)
            if any_database:
                return opened
            opened = replace(opened, database=same_database.name_of(servers, engine))
            return replace(opened, version=opened.version_in_force())
    except BaseException:
        opened.close()
        raise


def _open_servers(chosen: Settings) -> Servers:
    try:
        return connections.open_servers(chosen)
    except EmbeddedFailed as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno not in _FULL:
            raise _home_unusable(chosen, error.what, error.remedy) from error
        what = f"{error.what} ({error.path})"
        raise Unreachable("the embedded server", what, error.remedy) from error


def is_of_redis(error: Unreachable) -> bool:
    """Return whether Redis does not answer, so that the record may be read without it."""
    is_away = not isinstance(error, Unfit)
    cause = error.__cause__
    return is_away and isinstance(cause, redis.RedisError | EmbeddedFailed)


def record_url(chosen: Settings) -> str:
    """Return the address of the database. Make the home folder if the database lies in it."""
    if chosen.database_url is not None:
        return chosen.database_url
    require_home(chosen)
    return sqlite_url(chosen.home_path / "headgate.db")


@contextmanager
def record_alone(chosen: Settings | None = None) -> Iterator[Engine]:
    """Open the database only, for commands that need no Redis.

    The tables of an SQLite database are upgraded first. Raises Unreachable.
    """
    chosen = chosen or settings.load()
    url = record_url(chosen)
    engine = open_engine(url, chosen.database_timeout_s)
    try:
        with reaching(url):
            if url.startswith("sqlite"):
                migrate.upgrade(engine)
            migrate.require_fit(engine)
            yield engine
    finally:
        engine.dispose()


class LazyInstallation:
    """An installation that is opened when it is first used, once per process."""

    def __init__(self, chosen: Settings | None = None) -> None:
        self.settings = chosen
        self._changed = threading.Condition()
        self._pid = os.getpid()
        self._opened: Installation | None = None
        self._of_parents: list[Installation | None] = []
        self._users = 0
        self._closed = False

    def get(self) -> Installation:
        """Return the installation of this process; open it if it is not open.

        Raises Unreachable, and RuntimeError once it was closed.
        """
        self._reset_after_fork()
        with self._changed:
            return self._open()

    @contextmanager
    def use(self) -> Iterator[Installation]:
        """Give the open installation to the block; `close` waits for the end of the block.

        Errors of the servers inside the block become Unreachable.
        """
        self._reset_after_fork()
        with self._changed:
            at = self._open()
            self._users += 1
        try:
            with at.reaching():
                yield at
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def current(self, at: Installation, *, to_write: bool = False) -> Installation:
        """Return the installation with the catalog in force. It is one round trip to Redis.

        `to_write`: raise RedisError if Redis takes no writes now. If the reloaded catalog file has
        a fault, log a warning and keep the catalog from before.
        """
        version = at.version_in_force(to_write=to_write)
        if version == at.version:
            return at
        with self._changed:
            newest = self._opened
            if newest is not None and newest.version == version:
                return newest
            models = at.catalog
            try:
                models = catalog.load(at.settings.catalog)
            except CatalogError as error:
                log.warning("the catalog was reloaded, but not here: %s", error)
            newest = replace(at, catalog=models, version=version)
            if self._opened is not None:
                self._opened = newest
            return newest

    def close(self) -> None:
        """Close the installation for good. What is in use has 5 s to end."""
        self._reset_after_fork()
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0, CLOSE_WITHIN_S)
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self) -> Installation:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        if self._opened is None:
            self._opened = open_installation(self.settings)
        return self._opened

    def _reset_after_fork(self) -> None:
        # A child must not use, nor close, the sockets and SQLite files that it shares with its
        # parent: they are kept, so that no collector closes them, and new ones are opened. The
        # lock may have been held by a thread that the child does not have.
        if self._pid != os.getpid():
            self._of_parents.append(self._opened)
            self._opened, self._users = None, 0
            self._changed, self._pid = threading.Condition(), os.getpid()
