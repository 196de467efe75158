"""Opens the database, reads and writes it, the same way on PostgreSQL and SQLite.

No setting outlives its transaction on a PostgreSQL session. So a pooler such as PgBouncer, which
gives each transaction another session, may stand in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from headgate.shared.database import sqlite_file, sqlite_lock
from headgate.shared.database.sqlite_file import OpenFile
from headgate.shared.errors import Unreachable
from headgate.shared.settings import masked

TIMEOUT_S = 20.0
"""The longest wait for one statement, and on SQLite for the turn to write. Our statements take
milliseconds, and lists of a million jobs some seconds."""

POOL = 5
"""The most connections of one process. A worker uses two: for its writer, and for maintenance."""

POOL_TIMEOUT_S = 10
"""How long a thread of a producer waits for a connection of the pool."""

POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "prepare_threshold": None,
}
"""A connection that broke silently is closed after some 20 seconds."""

PREPARE_AFTER = 2
"""After so many uses a statement is prepared. Measured: 110 us of the server's CPU a job instead of
270. Not behind a pooler, where another client's statement may have the same name. A pooler shows by
the server's process id, which differs from the one given at connecting."""

POSTGRES_BOUNDS = (
    "SELECT set_config('lock_timeout', %(lock_ms)s, true),"
    " set_config('idle_in_transaction_session_timeout', '10s', true),"
    " set_config('synchronous_commit', coalesce("
    "nullif(current_setting('synchronous_commit'), 'off'), 'local'), true)"
)
"""Settings for one transaction. A lock is waited for at most a quarter of the statement's bound. A
worker that stops in the middle of a transaction (frozen, or cut off) soon loses its locks. With
`synchronous_commit` off, a crash of the server would undo attempts that were already sent: in a
test 900 of 6,000 jobs were paid twice."""

POSTGRES_PROBES = (
    f"{POSTGRES_BOUNDS}, set_config('enable_seqscan', 'off', true),"
    " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
)
"""The same for statements that look up each row by its key. The planner knows little of tables that
have just grown. In a test it read all of `attempts` to settle 16 rows, and kept that plan."""


def sqlite_url(file: Path) -> str:
    """Return the URL of this SQLite file, whose path may have any characters."""
    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def open_engine(database_url: str, timeout_s: float = TIMEOUT_S) -> Engine:
    """Return an engine for this URL; no statement takes longer than `timeout_s`."""
    if database_url.startswith("sqlite"):
        engine = create_engine(
            database_url,
            connect_args={"timeout": timeout_s, "check_same_thread": False},
            execution_options={"bound_s": timeout_s, "file": _file_of(database_url)},
            hide_parameters=True,
        )
        file = sqlite_file.of(engine)
        event.listen(engine, "do_connect", partial(_find_sqlite, file))
        event.listen(engine, "connect", partial(_prepare_sqlite, file))
        event.listen(engine, "begin", _begin_immediate)
        event.listen(engine, "engine_disposed", _close_lock)
        return engine
    engine = create_engine(
        database_url,
        pool_size=POOL,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args=POSTGRES_OPTIONS,
        execution_options={"bound_s": timeout_s},
        hide_parameters=True,
    )
    event.listen(engine, "do_connect", partial(_connect_postgres, timeout_s))
    event.listen(engine, "handle_error", _leave_session)
    return engine


def reading(engine: Engine) -> Connection:
    """Return a connection for reads: it takes no write lock and keeps no transaction open."""
    sqlite_file.require(engine)
    return engine.connect().execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """Give a connection whose reads all see the same state; on SQLite it blocks no writer."""
    if engine.dialect.name == "sqlite":
        with reading(engine) as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")
        return
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="REPEATABLE READ")


@contextmanager
def writing(engine: Engine, *, by_key: bool = False) -> Iterator[Connection]:
    """Give a transaction, committed at the end. On SQLite all processes' writers take turns.

    `by_key`: PostgreSQL finds every row by a probe of an index, also where it expects few rows.
    """
    bound_s = engine.get_execution_options()["bound_s"]
    if engine.dialect.name == "sqlite":
        with sqlite_lock.turn(str(engine.url.database), bound_s):
            sqlite_file.require(engine)
            with engine.begin() as connection:
                yield connection
        return
    with engine.begin() as connection:
        words = POSTGRES_PROBES if by_key else POSTGRES_BOUNDS
        run(connection, words, {"lock_ms": str(int(bound_s * 250))})
        yield connection


def run(connection: Connection, words: str, parameters: Mapping[str, Any]) -> list[Any]:
    """Run the statement on the driver itself; return its rows, if it has any.

    The words are in the driver's own form. SQLAlchemy would take longer than the database does.
    """
    driver: Any = connection.connection.driver_connection
    try:
        cursor = driver.execute(words, parameters)
        return cursor.fetchall() if cursor.description else []
    except connection.dialect.loaded_dbapi.Error as error:
        _raise(connection, error)


def run_each(connection: Connection, words: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run the statement on the driver itself, for one row of parameters after the other."""
    driver: Any = connection.connection.driver_connection
    try:
        driver.cursor().executemany(words, rows)
    except connection.dialect.loaded_dbapi.Error as error:
        _raise(connection, error)


def _raise(connection: Connection, error: Exception) -> NoReturn:
    """Raise the driver's error as SQLAlchemy does, and give up a session that it has ended."""
    dialect, driver = connection.dialect, connection.connection.driver_connection
    if _is_of_the_session(error) or dialect.is_disconnect(error, driver, None):  # type: ignore[arg-type]
        connection.invalidate(error)
    made = DBAPIError.instance(
        None, None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect
    )
    raise made from error


# What errors mean. SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html

_OF_THE_STATEMENT = ("21", "22", "23", "42", "54")
"""Classes of errors: cardinality, data, integrity, syntax or access rule, program limit."""

_OF_THE_TABLES = ("42501", "42703", "42P01")
"""No right, no such column, no such table: a restore or a migration is under way, or needed."""

_OF_THE_SESSION = ("25006", "0A000", "26000", "42P05")
"""The session is read-only, or its prepared statement was changed by a migration, lost by a pooler,
or taken by another client. A new session has none of these faults."""


def passes(error: DBAPIError) -> bool:
    """Return whether the error is about the database's state, so that a retry may succeed.

    The database is gone, full, read-only, locked or failing over. Errors about the statement and
    its values do not pass.
    """
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate:
        own = sqlstate.startswith(_OF_THE_STATEMENT)
        return not own or sqlstate in (*_OF_THE_TABLES, *_OF_THE_SESSION)
    return not isinstance(error, DataError | IntegrityError | ProgrammingError)


def lost_a_race(error: DBAPIError) -> bool:
    """Return whether another transaction caused the error (a deadlock); repeat it at once."""
    return str(getattr(error.orig, "sqlstate", "")).startswith("40")


def reason(error: BaseException) -> str:
    """Return the database's own message in one line."""
    original = getattr(error, "orig", None) or error
    return (str(original).strip() or type(original).__name__).splitlines()[0]


@contextmanager
def reaching(database_url: str) -> Iterator[None]:
    """Turn errors about the database's state into Unreachable, without a password in it."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        if isinstance(error, DBAPIError) and not passes(error):
            raise
        remedy = "check HEADGATE_DATABASE_URL"
        if sqlite_file.lost(error):
            remedy = "end this process, put the right file there, and start it again"
        if "not a database" in reason(error):
            remedy += ", and that the file is a SQLite database"
        name = f"the database at {masked(database_url)}"
        raise Unreachable(name, without_password(reason(error), database_url), remedy) from error


def without_password(words: str, database_url: str) -> str:
    """Return the text with the password of this URL replaced by `***`."""
    password = urlsplit(database_url).password
    return words.replace(password, "***") if password else words


def _connect_postgres(
    timeout_s: float, _dialect: Any, _record: Any, _args: Any, options: dict[str, Any]
) -> Any:
    from headgate.shared.database.postgres import BoundedConnection

    connection = BoundedConnection.connect(**options)
    connection.bound_s = timeout_s
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    connection.rollback()
    if row is not None and row[0] == connection.info.backend_pid:
        connection.prepare_threshold = PREPARE_AFTER
    return connection


def _leave_session(fault: ExceptionContext) -> None:
    # After a failover the sessions with the old server stay open and read-only. A new session
    # reaches the new primary, by its name or by target_session_attrs.
    if _is_of_the_session(fault.original_exception):
        fault.is_disconnect = True


def _is_of_the_session(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) in _OF_THE_SESSION


def _file_of(database_url: str) -> OpenFile | None:
    """Return the file of a SQLite URL; None for a database in memory and for a URI."""
    path = make_url(database_url).database
    return None if not path or path.startswith((":", "file:")) else OpenFile(Path(path).absolute())


def _find_sqlite(file: OpenFile | None, *_: Any) -> None:
    if file is not None:
        file.connecting()


def _prepare_sqlite(file: OpenFile | None, connection: sqlite3.Connection, _record: Any) -> None:
    if file is not None:
        file.connected()
    # pysqlite would begin transactions by itself and late; `_begin_immediate` does it instead.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _close_lock(engine: Engine) -> None:
    sqlite_lock.close(str(engine.url.database))


def _begin_immediate(connection: Connection) -> None:
    # A transaction that reads first and writes later can fail at once with SQLITE_BUSY, whatever
    # the timeout. One that takes the write lock at its start waits.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        run(connection, "BEGIN IMMEDIATE", {})
