"""Bad days of a PostgreSQL: what goes wrong, and the end of it, as `with` blocks.

The product speaks to it as `app`, an ordinary user: limits and a read-only moment spare superusers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psycopg
from psycopg import sql

from tests.support.child import wait_until
from tests.support.outages import frozen
from tests.support.servers import PostgresServer

Day = Callable[["Days"], AbstractContextManager[None]]


class Days:
    """A server with a database that belongs to `app`, and an administrator's view of both."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._admin("CREATE ROLE app LOGIN PASSWORD 'app-password'")
        self._admin("CREATE DATABASE record OWNER app")

    @property
    def url(self) -> str:
        """The record, as `app` reaches it."""
        return f"postgresql://app:app-password@127.0.0.1:{self.server.port}/record"

    def sessions(self) -> list[int]:
        """The process ids of the sessions of `app`."""
        query = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'"
        return [int(row[0]) for row in self._admin(query)]

    def lets_in(self) -> bool:
        """Whether `app` can open a session with the password in the URL."""
        try:
            psycopg.connect(self.url, connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True

    def end_sessions(self) -> None:
        """All sessions of `app` were terminated by the administrator."""
        self._admin("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")

    def _admin(self, *statements: str, database: str = "postgres") -> Sequence[Any]:
        url = self.server.url(database)
        with psycopg.connect(url, autocommit=True) as connection:
            found: Sequence[Any] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                found = cursor.fetchall() if cursor.description else []
            return found

    # The days.

    @contextmanager
    def killed(self) -> Iterator[None]:
        """kill -9 of the whole server."""
        self._admin("CHECKPOINT")  # the tests' server syncs nothing by itself
        self.server.kill()
        yield
        self.server.start()

    @contextmanager
    def session_killed(self) -> Iterator[None]:
        """kill -9 of one session, over which the server ends all others and recovers."""
        wait_until(self.sessions, 10, "a session")
        os.kill(self.sessions()[0], signal.SIGKILL)
        yield
        wait_until(self.server.ready, 30, "the server to recover")

    @contextmanager
    def sessions_ended(self) -> Iterator[None]:
        """Terminated by the administrator, and nobody is let in for a while."""
        self._admin("ALTER DATABASE record ALLOW_CONNECTIONS false")
        self.end_sessions()
        yield
        self._admin("ALTER DATABASE record ALLOW_CONNECTIONS true")

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Every transaction is read-only, as on a server that has been demoted."""
        self._admin(
            "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
        )
        yield
        self._admin("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")

    @contextmanager
    def too_many(self) -> Iterator[None]:
        """No connection is left for `app`."""
        self._admin("ALTER ROLE app CONNECTION LIMIT 0")
        self.end_sessions()
        yield
        self._admin("ALTER ROLE app CONNECTION LIMIT -1")

    @contextmanager
    def disk_full(self) -> Iterator[None]:
        """Every write of a row is answered with the SQLSTATE of a full disk.

        A disk of one's own takes root; the state is the server's, raised by a trigger.
        """
        body = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END"
        names = ("jobs", "attempts", "audit", "batches")
        self._admin(
            f"CREATE FUNCTION full_disk() RETURNS trigger AS $$ {body} $$ LANGUAGE plpgsql",
            *(
                f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {name}"
                " EXECUTE FUNCTION full_disk()"
                for name in names
            ),
            database="record",
        )
        yield
        # To drop the triggers would lock all tables at once, against the order of the workers.
        body = "BEGIN RETURN NULL; END"
        self._admin(
            f"CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger AS $$ {body} $$"
            " LANGUAGE plpgsql",
            database="record",
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another session keeps a lock on the jobs."""
        with psycopg.connect(self.server.url("record")) as other:
            other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes bytes and answers nothing: all of its processes stand still."""
        with frozen(self.server):
            yield

    @contextmanager
    def password_changed(self) -> Iterator[None]:
        """The password in the URL is not the right one any more."""
        rules = self.server.cluster / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text("host all app 127.0.0.1/32 scram-sha-256\n" + before)
        self._admin("ALTER ROLE app PASSWORD 'another'", "SELECT pg_reload_conf()")
        # The server reloads later: until then sessions that were ended are let in again.
        wait_until(lambda: not self.lets_in(), 10, "the password to be asked for")
        self.end_sessions()
        yield
        self._admin("ALTER ROLE app PASSWORD 'app-password'")
        rules.write_text(before)
        self._admin("SELECT pg_reload_conf()")

    @contextmanager
    def tables_gone(self) -> Iterator[None]:
        """A restore is under way: the tables are not there."""
        rename = sql.SQL("ALTER TABLE {} RENAME TO {}")
        self._admin(rename.format(*map(sql.Identifier, ("jobs", "x"))).as_string(),
                    database="record")  # fmt: skip
        yield
        self._admin(rename.format(*map(sql.Identifier, ("x", "jobs"))).as_string(),
                    database="record")  # fmt: skip
