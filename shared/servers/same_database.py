"""Makes sure that all who share a Redis share one database.

Redis stores the id of its database. With two databases jobs would be paid twice: each sends again
what the other has in hand.
"""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Engine, make_url

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import text_of
from headgate.shared.database import identity, sqlite_file
from headgate.shared.errors import SettingError
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import masked


@dataclass(frozen=True, slots=True)
class DatabaseName:
    """The id of a database, and its address for people: without a password."""

    id: str
    address: str

    def __str__(self) -> str:
        return f"{self.address} (id {self.id[:8]})"

    def encode(self) -> str:
        """Return it as Redis stores it."""
        return f"{self.id} {self.address}"


def decode(value: Any) -> DatabaseName | None:
    """Return what Redis has stored; None if nothing."""
    if value is None:
        return None
    found, _, address = text_of(value).partition(" ")
    return DatabaseName(found, address or "an unknown address")


def name_of(servers: Servers, engine: Engine) -> DatabaseName:
    """Return the name of the database of these servers."""
    address = masked(servers.database_url)
    if servers.database_url.startswith("sqlite"):
        address += f" on {platform.node()}"
    return DatabaseName(identity.id_of(engine), address)


def owner(client: redis.Redis, keys: Keys) -> DatabaseName | None:
    """Return the database that this Redis belongs to; None if it belongs to none yet."""
    return decode(client.get(keys.database()))


def claim(client: redis.Redis, keys: Keys, mine: DatabaseName) -> DatabaseName:
    """Return the database that this Redis belongs to; if it belongs to none, make it mine."""
    if (found := owner(client, keys)) is None:
        with suppress(redis.ResponseError):  # full, say: what only reads goes on
            client.set(keys.database(), mine.encode(), nx=True)
        found = owner(client, keys)
    return found or mine


def require(servers: Servers, mine: DatabaseName, found: DatabaseName) -> None:
    """Raise SettingError, with what to set, if Redis belongs to another database."""
    if found.id == mine.id:
        return
    remedy = mismatch(servers, mine, found)
    error = SettingError("HEADGATE_DATABASE_URL", mine.address, remedy)
    is_set = "" if servers.settings.database_url else " (not set)"
    error.args = (f"HEADGATE_DATABASE_URL{is_set}: {mine.address}: {remedy}",)  # however long
    raise error


def mismatch(servers: Servers, mine: DatabaseName, found: DatabaseName) -> str:
    """Return what is wrong and what to do if Redis belongs to another database."""
    what = f"Redis at {masked(servers.redis_url)} belongs to another database: {found}"
    if found.address == mine.address:
        what += f"; the one there now has the id {mine.id[:8]}, so it was deleted or replaced"
        if (saved := _saved(servers, found)) is not None:
            what += f"; a worker has saved the one before as {saved}"
    remedy = (
        "set HEADGATE_DATABASE_URL to that database, or run `headgate db adopt` to give this Redis "
        "to the database here"
    )
    if servers.is_embedded:
        remedy = (
            "put that database back, run `headgate db adopt` to go on with the one here, or delete "
            f"the whole home {servers.settings.home_path} to begin anew"
        )
    return f"{what}; {remedy}"


def _saved(servers: Servers, lost: DatabaseName) -> Path | None:
    """Return the file in which a worker has saved the lost database; None if there is none."""
    path = make_url(servers.database_url).database
    if not servers.database_url.startswith("sqlite") or not path:
        return None
    saved = sqlite_file.place_to_save(Path(path), lost.id)
    return saved if saved.exists() else None


def check(servers: Servers) -> None:
    """Open both, and raise SettingError if Redis belongs to another database.

    Raises RedisError and DBAPIError if a server does not answer.
    """
    engine, client = servers.engine(), servers.redis_client()
    try:
        mine = name_of(servers, engine)
        require(servers, mine, claim(client, servers.keys, mine))
    finally:
        client.close()
        engine.dispose()
