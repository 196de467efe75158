"""The id of a database: made at its first use, and the same for all who share it.

A backup has the id of its database.
"""

from __future__ import annotations

import uuid

from sqlalchemy import Engine, select

from headgate.shared.database import sqlite_file
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.many_rows import insert_all
from headgate.shared.database.tables import database_id


def id_of(engine: Engine) -> str:
    """Return the id of this database; give it one if it has none."""
    query = select(database_id.c.id)
    with reading(engine) as connection:
        found = connection.scalar(query)
    if found is None:
        with writing(engine) as connection:
            # If two processes insert a row, the second keeps that of the first.
            insert_all(connection, database_id, [{"one": 1, "id": str(uuid.uuid4())}])
            found = connection.scalar(query)
    if (file := sqlite_file.of(engine)) is not None:
        file.database_id = file.database_id or str(found)
        file.look_at_index()
    return str(found)
