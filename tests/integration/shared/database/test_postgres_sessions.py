"""What a PostgreSQL session meets: races, frozen servers and workers, poolers, wrong addresses."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, insert, text, update
from sqlalchemy.exc import OperationalError

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading, writing
from headgate.shared.database.tables import batches
from headgate.workers.clients.group_commit import GroupCommit
from tests.integration.shared.database.test_prepared_statements import Pooler
from tests.integration.workers.clients.test_group_commit import Counted, names, row
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.command import headgate
from tests.support.servers import PostgresServer, free_port

#: Holds the row of the batch `one` in a transaction, and says so.
HOLD = """
import sys, time
from pathlib import Path
from sqlalchemy import update
from headgate.shared.database.engine import open_engine, writing
from headgate.shared.database.tables import batches
with writing(open_engine(sys.argv[1])) as connection:
    connection.execute(update(batches).where(batches.c.id == "one").values(lines=2))
    Path(sys.argv[2]).touch()
    time.sleep(60)
"""


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """Today's tables with two rows."""
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    with writing(engine) as connection:
        connection.execute(insert(batches), [row("one"), row("two")])
    yield engine
    engine.dispose()


@pytest.fixture
def hasty(engine: Engine) -> Iterator[Engine]:
    """The same tables, on connections whose statements take five seconds at most."""
    opened = open_engine(str(engine.url), timeout_s=5)
    yield opened
    opened.dispose()


@pytest.fixture
async def record(hasty: Engine) -> AsyncIterator[GroupCommit]:
    record = GroupCommit(hasty)
    yield record
    await record.close()


def touch(connection: Connection, batch: str) -> None:
    connection.execute(
        update(batches).where(batches.c.id == batch).values(lines=batches.c.lines + 1)
    )


async def test_the_victim_of_a_deadlock_is_repeated_silently(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    meeting = threading.Barrier(2, timeout=10)
    with engine.connect() as connection:
        detect = text("SELECT setting::int FROM pg_settings WHERE name = 'deadlock_timeout'")
        deadlock_ms = connection.scalar(detect)
    assert deadlock_ms == 1000
    patient = open_engine(str(engine.url), timeout_s=20)
    other, ours = GroupCommit(patient), GroupCommit(patient)
    runs = {"a": 0, "b": 0}

    def crossing(name: str, first: str, second: str) -> Callable[..., list[str]]:
        def act(connection: Connection, items: Sequence[str]) -> list[str]:
            runs[name] += 1
            touch(connection, first)
            if runs[name] == 1:
                meeting.wait()
            touch(connection, second)
            return list(items)

        return act

    try:
        told = await asyncio.gather(
            ours.write(crossing("a", "one", "two"), "a"),
            other.write(crossing("b", "two", "one"), "b"),
        )
    finally:
        await ours.close()
        await other.close()
    assert list(told) == ["a", "b"]
    assert sorted(runs.values()) == [1, 2]
    assert "does not answer" not in caplog.text
    with reading(engine) as connection:
        assert set(connection.scalars(text("SELECT lines FROM batches"))) == {3}


async def test_a_worker_frozen_in_mid_transaction_does_not_keep_its_locks(
    record: GroupCommit, postgres_url: str, tmp_path: Path
) -> None:
    held = tmp_path / "held"
    argv: list[str | Path] = [sys.executable, "-c", HOLD, postgres_url, held]
    frozen = ChildProcess(argv, log_path=tmp_path / "frozen.log")

    def act(connection: Connection, items: Sequence[str]) -> list[str]:
        touch(connection, "one")
        return list(items)

    try:
        frozen.start()
        await asyncio.to_thread(wait_until, held.exists, 20, "the lock")
        frozen.freeze()
        assert await asyncio.wait_for(record.write(act, "done"), 30 * BUSY) == "done"
    finally:
        frozen.kill()


def test_a_session_that_stands_still_is_given_up_within_the_bound(
    engine: Engine, hasty: Engine
) -> None:
    with reading(hasty) as connection:
        pid = int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(OperationalError, match="no answer to a statement within 5 s"):
                connection.execute(text("SELECT 1"))
        finally:
            os.kill(pid, signal.SIGCONT)
    assert names(engine) == ["one", "two"]


def test_a_statement_that_takes_too_long_is_ended_on_the_server_too(
    hasty: Engine, postgres_url: str
) -> None:
    with reading(hasty) as connection, pytest.raises(OperationalError, match="within 5 s"):
        connection.execute(text("SELECT pg_sleep(60)"))
    asleep = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    )
    other = open_engine(postgres_url)
    with reading(other) as connection:
        wait_until(lambda: connection.scalar(asleep) == 0, 10, "the server to end it")
    other.dispose()


async def test_behind_a_pooler_nothing_of_ours_is_left_for_the_session_s_next_user(
    engine: Engine, postgres: PostgresServer
) -> None:
    """PgBouncer's transaction mode gives each transaction another session."""
    pooler = Pooler(postgres.port).start()
    pooled = open_engine(str(engine.url).replace(f":{postgres.port}/", f":{pooler.port}/"))
    record, act = GroupCommit(pooled), Counted()
    left = {
        "prepared": "SELECT name FROM pg_prepared_statements",
        "settings": "SELECT name FROM pg_settings WHERE source = 'session'",
        "tables": "SELECT relname FROM pg_class WHERE relpersistence = 't'",
        "locks": "SELECT objid FROM pg_locks WHERE locktype = 'advisory'",
        "channels": "SELECT pg_listening_channels()",
    }
    try:
        for n in range(12):
            await asyncio.gather(*(record.write(act, f"{n}-{i}") for i in range(5)))
        with reading(pooled) as connection:
            found = {what: list(connection.scalars(text(query))) for what, query in left.items()}
        assert not any(found.values()), found
    finally:
        await record.close()
        pooler.stop()


async def test_a_changed_column_costs_a_new_session_and_no_job(
    engine: Engine, record: GroupCommit
) -> None:
    """A prepared statement whose columns a migration has changed is refused for good."""

    def look(connection: Connection, items: Sequence[str]) -> list[int]:
        return [int(connection.scalar(text("SELECT lines FROM batches LIMIT 1")) or 0)] * len(items)

    for _ in range(5):
        assert await record.write(look, "x") == 1
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE batches ALTER COLUMN lines TYPE bigint"))
    assert await asyncio.wait_for(record.write(look, "x"), 10 * BUSY) == 1


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://postgres@127.0.0.1:{port}/no_such_database", "does not exist"),
        ("postgresql://nobody_of_this_name:secret-word@127.0.0.1:{port}/postgres", "role"),
        ("postgresql://postgres:secret-word@no-such-host.invalid/x", "resolve"),
        ("postgresql://postgres:secret-word@127.0.0.1:{closed}/x", "refused"),
    ],
)
def test_a_wrong_address_ends_a_command_with_its_reason(
    url: str, told: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    env = {
        "HEADGATE_HOME": str(tmp_path),
        "HEADGATE_DATABASE_URL": url.format(port=postgres.port, closed=free_port()),
    }
    ended = headgate(["db", "check"], env)
    assert ended.code == 3, ended
    assert told in ended.err
    assert "secret-word" not in ended.err
    assert "Traceback" not in ended.err


async def test_a_server_that_is_still_starting_is_waited_for(
    postgres_factory: Callable[[], PostgresServer],
) -> None:
    """57P03 is what a server in recovery answers; here one that is told to wait for its archive."""
    server = postgres_factory()
    engine = open_engine(server.url("postgres"), timeout_s=5)
    migrate.upgrade(engine)
    record = GroupCommit(engine)
    try:
        with engine.connect() as connection:
            connection.execute(text("CHECKPOINT"))
        await asyncio.to_thread(server.stop)
        signalled, settings = (
            server.cluster / "standby.signal",
            server.cluster / "postgresql.auto.conf",
        )
        settings.write_text("hot_standby = off\nrestore_command = 'false'\n")
        signalled.touch()
        starting = await asyncio.to_thread(
            lambda: ChildProcess(
                server.argv, log_path=server.log_path, cwd=server.folder, user=server.user
            ).start()
        )
        wish = asyncio.ensure_future(record.write(Counted(), "patient"))
        done, _ = await asyncio.wait({wish}, timeout=2)
        assert not done
        starting.stop_signal = signal.SIGINT
        await asyncio.to_thread(starting.stop)
        signalled.unlink()
        settings.write_text("")
        await asyncio.to_thread(server.start)
        assert await asyncio.wait_for(wish, 20 * BUSY) == "wrote patient"
    finally:
        await record.close()


def test_of_several_hosts_the_one_that_can_be_written_is_taken(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    """As libpq has it: so a failover needs no new setting."""
    hosts = f"host=127.0.0.1:{free_port()}&host=127.0.0.1:{postgres.port}"
    name = postgres_url.rpartition("/")[2]
    url = f"postgresql://postgres@/{name}?{hosts}&target_session_attrs=read-write"
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_DATABASE_URL": url}
    upgraded = headgate(["db", "upgrade"], env)
    assert upgraded.code == 0, upgraded
    assert headgate(["db", "check"], env).code == 0


def test_a_commit_outlives_a_kill_also_where_the_server_answers_before_it_writes(
    postgres_factory: Callable[[], PostgresServer],
) -> None:
    server = postgres_factory()  # synchronous_commit is off
    engine = open_engine(server.url("postgres"))
    migrate.upgrade(engine)
    for number in range(3):
        with writing(engine) as connection:
            connection.execute(insert(batches), [row(f"batch {number}")])
        server.kill()
        engine.dispose()
        server.start()
        assert len(names(engine)) == number + 1
    engine.dispose()
