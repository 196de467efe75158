"""Runs the migrations, for shared/database/migrate.py and for the command `alembic` of a checkout.

The former hands over its connection. The latter uses the database of the settings, and keeps other
migrations out as well. Tables of others in the same database are left out of all comparisons.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection

from headgate.shared import settings
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, sqlite_url
from headgate.shared.database.tables import metadata


def _is_ours(name: str | None, kind: str, _parents: Any) -> bool:
    return kind != "table" or name in metadata.tables


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        compare_server_default=True,
        include_name=_is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_on_the_settings_database() -> None:
    in_force = settings.load()
    url = in_force.database_url or sqlite_url(in_force.home_path / "headgate.db")
    if context.is_offline_mode():
        context.configure(url=url, target_metadata=metadata, literal_binds=True)
        with context.begin_transaction():
            context.run_migrations()
        return
    engine = open_engine(url, in_force.database_timeout_s)
    try:
        with migrate.alone(engine) as connection:
            _run(connection)
    finally:
        engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    _run_on_the_settings_database()
