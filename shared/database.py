"""Opens the database: engines that behave alike on PostgreSQL and SQLite, and their use."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite

SQLITE_BUSY_MS = 30_000
"""How long a writer waits for the others; commits take milliseconds, so this means trouble."""

POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's own: a line that broke without a word is given up after some 20 seconds."""


def open_engine(database_url: str) -> Engine:
    """An engine with the settings that both databases need here."""
    if database_url.startswith("sqlite"):
        engine = create_engine(
            database_url,
            connect_args={"timeout": SQLITE_BUSY_MS / 1000, "check_same_thread": False},
            hide_parameters=True,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    return create_engine(
        database_url, pool_pre_ping=True, connect_args=POSTGRES_OPTIONS, hide_parameters=True
    )


def reading(engine: Engine) -> Connection:
    """A connection for reads alone: it takes no write lock, and holds no transaction open."""
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction, committed at the end. On SQLite the writers of all processes take turns.

    SQLite has one writer, and those who wait for it poll with growing pauses: with four workers
    some waited for seconds. A lock of the kernel hands the turn on at once, and ends with its
    holder.
    """
    if engine.dialect.name != "sqlite" or not engine.url.database:
        with engine.begin() as connection:
            yield connection
        return
    turn = os.open(f"{engine.url.database}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with engine.begin() as connection:
            yield connection
    finally:
        os.close(turn)


def insert_once(connection: Connection, table: Table) -> Any:
    """An INSERT that leaves a row alone which is there already: it may run twice."""
    made = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return made(table).on_conflict_do_nothing()


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # pysqlite would open transactions by itself and late; `_begin_immediate` does it instead.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={SQLITE_BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later can fail at once with SQLITE_BUSY, whatever
    # the timeout; taking the write lock at the start waits instead.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.execute(text("BEGIN IMMEDIATE"))
