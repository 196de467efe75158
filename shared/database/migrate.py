"""Upgrades a database to the newest tables, once, even if several processes start together."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect, text

from headgate.shared.database.engine import reading, writing
from headgate.shared.errors import Unfit

if TYPE_CHECKING:
    from alembic.config import Config

NEWEST = "0005"
"""The revision that this code works with; the last file in migrations/versions."""

ADVISORY_LOCK = 0x48656164
"""The key of PostgreSQL's advisory lock that a migration holds: "Head" in ASCII."""


def _folder() -> Path:
    return Path(str(files("headgate"))) / "migrations"


def revision(connection: Connection) -> str | None:
    """Return the revision of the tables, or None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def revisions() -> list[str]:
    """Return all revisions that this code knows, the oldest first."""
    from alembic.script import ScriptDirectory

    return [step.revision for step in ScriptDirectory(str(_folder())).walk_revisions()][::-1]


def fits(found: str | None) -> bool:
    """Return whether this code works with tables of this revision: NEWEST, and the one after it.

    A release adds at most one revision, and the previous release works with its tables.
    """
    return found in (NEWEST, f"{int(NEWEST) + 1:04d}")


def is_ahead(found: str | None) -> bool:
    """Return whether only a newer release can have made this revision."""
    return found is not None and found not in revisions()


def require_fit(engine: Engine) -> None:
    """Raise Unfit, with the remedy, if this code does not work with the tables as they are."""
    with reading(engine) as connection:
        found = revision(connection)
    if not fits(found):
        raise _misfit(found)


def _misfit(found: str | None) -> Unfit:
    state = f"its tables are at {found}" if found else "it has no tables yet"
    remedy = "run: headgate db upgrade"
    if is_ahead(found):
        remedy = "use the newer headgate that upgraded them, or its `headgate db downgrade`"
    return Unfit("the database", f"{state}, but this version needs {NEWEST}", remedy)


def upgrade(engine: Engine) -> bool:
    """Upgrade the tables to NEWEST if needed; return whether anything was done.

    Raises Unfit if a newer release has made the tables.
    """
    with reading(engine) as connection:
        found = revision(connection)
    if fits(found):
        return False
    with alone(engine) as connection:
        found = revision(connection)
        if fits(found):
            return False
        if is_ahead(found):
            raise _misfit(found)
        _run(connection, "upgrade", NEWEST)
        return True


def downgrade(engine: Engine, to: str) -> None:
    """Downgrade the tables to the revision `to`; `base` removes them all."""
    with alone(engine) as connection:
        _run(connection, "downgrade", to)


def _run(connection: Connection, direction: str, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    config: Config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    getattr(command, direction)(config, target)


@contextmanager
def alone(engine: Engine) -> Iterator[Connection]:
    """Give a transaction that no other migration runs beside, committed at the end.

    Other migrations wait as long as it takes. If the process is killed, nothing has changed: both
    databases create tables in transactions, and both locks end with their holder.
    """
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        # With private rights, because everyone who may read a file may lock it.
        with open(f"{path}.migrate.lock", "w", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with writing(engine) as connection:
                yield connection
        return
    with engine.begin() as connection:
        session: Any = connection.connection.driver_connection
        session.bound_s = None
        connection.detach()  # from the pool: it is closed afterwards
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        # While a change waits for a table, everyone else waits behind it.
        connection.execute(text("SELECT set_config('lock_timeout', '10s', true)"))
        yield connection


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
