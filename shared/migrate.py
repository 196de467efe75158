"""Brings a database to the newest tables, once, also when several processes start together."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from shared.errors import Unreachable

if TYPE_CHECKING:
    from alembic.config import Config

NEWEST = "0001"
"""The revision that this code works with; the last file in migrations/versions."""

ADVISORY_LOCK = 0x48656164
"""PostgreSQL's advisory lock that only one migration at a time holds ("Head")."""


def _folder() -> Path:
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "migrations"


def revision(connection: Connection) -> str | None:
    """The revision of the tables, or None in an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def revisions() -> list[str]:
    """All revisions that this code knows, oldest first."""
    from alembic.script import ScriptDirectory

    return [step.revision for step in ScriptDirectory(str(_folder())).walk_revisions()][::-1]


def require_newest(engine: Engine) -> None:
    """The tables are what this code works with; raises Unreachable with the remedy if not."""
    with engine.connect() as connection:
        found = revision(connection)
    if found != NEWEST:
        state = f"its tables are at {found}" if found else "it has no tables yet"
        raise Unreachable(
            "the record", f"{state}, this version needs {NEWEST}", "run: headgate db upgrade"
        )


def upgrade(engine: Engine) -> bool:
    """The tables are the newest; True when something was done."""
    with engine.connect() as connection:
        if revision(connection) == NEWEST:
            return False
    with _alone(engine) as connection:
        if revision(connection) == NEWEST:
            return False
        _run(connection, "upgrade", "head")
        return True


def downgrade(engine: Engine, to: str) -> None:
    """The tables are at revision `to` (`base`: none are left)."""
    with _alone(engine) as connection:
        _run(connection, "downgrade", to)


def _run(connection: Connection, direction: str, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    config: Config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    getattr(command, direction)(config, target)


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other migration shares; what it did is committed at the end."""
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".migrate.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with engine.begin() as connection:
                yield connection
        return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        yield connection
