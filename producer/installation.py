"""What one producer process holds of an installation: its servers, its engine, its catalog.

Opened at the first use, closed by `close`, opened anew in a forked child.
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

from headgate.producer.submit.model_status import ModelStatuses
from headgate.producer.submit.prepare import Submitter
from headgate.shared import settings
from headgate.shared.admission import tiers
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog import catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reaching, reason, without_password
from headgate.shared.errors import CatalogError, SettingError, Unreachable
from headgate.shared.servers import redis_check
from headgate.shared.servers import servers as connections
from headgate.shared.servers.embedded import EmbeddedFailed
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings, masked

log = logging.getLogger("headgate.catalog")

CLOSE_WITHIN_S = 5.0

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Installation:
    """Open servers of one process. `redis` and `engine` are blocking and may be used by threads."""

    servers: Servers
    engine: Engine
    redis: redis.Redis
    catalog: Catalog
    submitter: Submitter
    version: int = 0
    """Which reload of the catalog this one is of."""

    @property
    def settings(self) -> Settings:
        """The settings that it was opened with."""
        return self.servers.settings

    @property
    def keys(self) -> Keys:
        """The names of all Redis keys."""
        return self.servers.keys

    def version_in_force(self) -> int:
        """How often the catalog was reloaded; also shows that the broker answers."""
        found: Any = self.redis.get(self.keys.version())
        return int(found or 0)

    @property
    def redis_name(self) -> str:
        """The Redis as an error may name it."""
        return f"Redis at {masked(self.servers.redis_url)}"

    @property
    def database_name(self) -> str:
        """The database as an error may name it."""
        return f"the database at {masked(self.servers.database_url)}"

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Errors of the servers inside become Unreachable, with no password in it."""
        try:
            with reaching(self.servers.database_url):
                yield
        except redis.RedisError as error:
            raise redis_check.fault(error, self.servers.address, self.servers.redis_url) from error

    def reason(self, error: BaseException) -> str:
        """What went wrong at a server, in one line without a password."""
        if isinstance(error, redis.RedisError):
            return redis_check.reason(error, self.servers.address)
        return without_password(reason(error), self.servers.database_url)

    def close(self) -> None:
        """All connections are closed, and the embedded server is left."""
        self.redis.close()
        self.engine.dispose()
        self.servers.close()


def require_home(chosen: Settings) -> None:
    """The home is a folder that can be written; raises SettingError if it cannot be one."""
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
        raise _unusable(chosen, f"cannot be used: {reason}", remedy) from error


def _unusable(chosen: Settings, what: str, remedy: str) -> SettingError:
    return SettingError("HEADGATE_HOME", str(chosen.home), f"{what}; {remedy}")


def open_installation(chosen: Settings | None = None) -> Installation:
    """The installation that the settings name, its servers answering; raises Unreachable.

    Redis is asked before anything is written, so that a wrong address costs no job: after this,
    a job's row is always written before its message.
    """
    chosen = chosen or settings.load()
    models = catalog.load(chosen.catalog)
    tier_of = tiers.source(chosen.tiers, models, lambda: engine)
    if chosen.redis_url is None or chosen.database_url is None:
        require_home(chosen)
    try:
        servers = connections.open_servers(chosen)
    except EmbeddedFailed as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno not in _FULL:
            raise _unusable(chosen, error.what, error.remedy) from error
        raise Unreachable(
            "the embedded server", f"{error.what} ({error.path})", error.remedy
        ) from (error)
    engine = servers.engine()
    client = servers.redis_client()
    standing = ModelStatuses(client, servers.keys, chosen, models)
    submitter = Submitter(chosen, models, tier_of, standing)
    opened = Installation(servers, engine, client, models, submitter)
    try:
        servers.check_redis(client)
        with opened.reaching():
            migrate.require_fit(engine)
            return replace(opened, version=opened.version_in_force())
    except BaseException:
        opened.close()
        raise


def record_url(chosen: Settings) -> str:
    """The address of the record; the home is there if the record lies in it."""
    if chosen.database_url is not None:
        return chosen.database_url
    require_home(chosen)
    return f"sqlite:///{chosen.home_path / 'headgate.db'}"


@contextmanager
def record_alone(chosen: Settings | None = None) -> Iterator[Engine]:
    """The record with tables that fit, for those who need no Redis; raises Unreachable."""
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
        self._turn = threading.Condition()
        self._pid = os.getpid()
        self._opened: Installation | None = None
        self._of_parents: list[Installation | None] = []
        self._users = 0
        self._closed = False

    def get(self) -> Installation:
        """The open installation of this process; raises Unreachable, RuntimeError once closed."""
        self._after_fork()
        with self._turn:
            return self._open()

    @contextmanager
    def use(self) -> Iterator[Installation]:
        """The open installation, which `close` leaves open until the end of this block.

        Errors of its servers inside become Unreachable.
        """
        self._after_fork()
        with self._turn:
            at = self._open()
            self._users += 1
        try:
            with at.reaching():
                yield at
        finally:
            with self._turn:
                self._users -= 1
                self._turn.notify_all()

    def current(self, at: Installation) -> Installation:
        """The same with the catalog that is in force now, for one round trip to Redis.

        A file with a fault is told, and what was in force before stays in force here.
        """
        version = at.version_in_force()
        if version == at.version:
            return at
        with self._turn:
            newest = self._opened
            if newest is not None and newest.version == version:
                return newest
            models = at.catalog
            try:
                models = catalog.load(at.settings.catalog)
            except CatalogError as error:
                log.warning("the catalog was reloaded, but not here: %s", error)
            standing = ModelStatuses(at.redis, at.keys, at.settings, models)
            submitter = Submitter(at.settings, models, standing=standing)
            newest = replace(at, catalog=models, submitter=submitter, version=version)
            if self._opened is not None:
                self._opened = newest
            return newest

    def close(self) -> None:
        """Nothing is open any more, and nothing will be; what is in use has five seconds to end."""
        self._after_fork()
        with self._turn:
            self._closed = True
            self._turn.wait_for(lambda: self._users == 0, CLOSE_WITHIN_S)
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self) -> Installation:
        if self._closed:
            raise RuntimeError("this client is closed; make a new one")
        if self._opened is None:
            self._opened = open_installation(self.settings)
        return self._opened

    def _after_fork(self) -> None:
        # A child must not use, nor close, the sockets and SQLite files that it shares with its
        # parent: they are kept, so that no collector closes them, and new ones are opened. The
        # lock may have been held by a thread that the child does not have.
        if self._pid != os.getpid():
            self._of_parents.append(self._opened)
            self._opened, self._users = None, 0
            self._turn, self._pid = threading.Condition(), os.getpid()
