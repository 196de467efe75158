"""Group commit: many writes in few transactions, none spoilt by another, none lost in an outage."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.tables import batches
from headgate.workers.clients.group_commit import GroupCommit
from tests.support.child import BUSY
from tests.support.servers import PostgresServer


class Counted:
    """An act that inserts, and counts how often and with how many items it was called."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    def __call__(self, connection: Connection, items: Sequence[str]) -> list[str]:
        self.groups.append(len(items))
        connection.execute(insert(batches), [row(name) for name in items])
        return [f"wrote {name}" for name in items]


def row(name: str) -> dict[str, Any]:
    return {
        "id": name, "input_path": name, "input_sha256": "0", "defaults": "{}", "lines": 1,
        "bad_lines": 0, "created_at_ms": 1,
    }  # fmt: skip


def look(connection: Connection, items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


def say(connection: Connection, items: Sequence[str]) -> list[str]:
    return [item.upper() for item in items]


def names(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(batches.c.id).order_by(batches.c.id)))


@pytest.fixture
def engine(database_url: str) -> Engine:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    return engine


@pytest.fixture
async def record(engine: Engine) -> AsyncIterator[GroupCommit]:
    record = GroupCommit(engine)
    yield record
    await record.close()


async def test_a_write_that_returned_is_committed(record: GroupCommit, engine: Engine) -> None:
    assert await record.write(Counted(), "one") == "wrote one"
    assert names(engine) == ["one"]


async def test_many_writes_at_once_share_few_transactions(
    record: GroupCommit, engine: Engine
) -> None:
    act = Counted()
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*(record.write(act, f"n{n:04}") for n in range(1200)))
    took_s = asyncio.get_running_loop().time() - began
    assert answers == [f"wrote n{n:04}" for n in range(1200)]
    assert len(names(engine)) == 1200
    assert len(act.groups) <= 8 + took_s / 0.02
    assert max(act.groups) <= 500


async def test_a_steady_load_is_committed_in_groups(record: GroupCommit) -> None:
    act = Counted()

    async def job(n: int) -> None:
        for step in range(10):
            await record.write(act, f"j{n}-{step}")

    await asyncio.gather(*(job(n) for n in range(50)))
    assert sum(act.groups) == 500
    assert len(act.groups) <= 100


async def test_one_bad_item_does_not_spoil_the_others(record: GroupCommit, engine: Engine) -> None:
    act = Counted()
    await record.write(act, "twice")
    wishes = ["a", "b", "twice", "c", "x\ud800", "d"]
    answers = await asyncio.gather(*(record.write(act, w) for w in wishes), return_exceptions=True)
    assert answers[0] == "wrote a"
    assert [type(t) is str for t in answers] == [True, True, False, True, False, True]
    assert names(engine) == ["a", "b", "c", "d", "twice"]


async def test_a_passing_fault_of_the_machine_is_waited_out(
    record: GroupCommit, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """No file handle is left for a moment: what was paid for is held, and recorded afterwards."""
    faults = [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error")]
    act = Counted()

    def without_handles(connection: Connection, items: Sequence[str]) -> list[str]:
        if faults:
            raise faults.pop()
        return act(connection, items)

    answers = await asyncio.gather(*(record.write(without_handles, n) for n in ("a", "b")))
    assert answers == ["wrote a", "wrote b"]
    assert names(engine) == ["a", "b"]
    assert [line for line in caplog.messages if "I/O error" in line]
    assert [line for line in caplog.messages if "answers again" in line]


async def test_writes_together_are_committed_together_or_not_at_all(
    record: GroupCommit, engine: Engine
) -> None:
    act = Counted()
    await record.write(act, "twice")
    with pytest.raises(Exception, match=r"(?i)unique"):
        await record.together((act, "new"), (look, 1), (Counted(), "twice"))
    assert names(engine) == ["twice"]


async def test_answers_come_in_the_order_of_the_writes_whatever_shares_the_transaction(
    record: GroupCommit,
) -> None:
    """A neighbour's act that comes first in the group must not turn another job's answers round."""
    answers = await asyncio.gather(
        record.write(say, "alone"),
        record.together((look, 4), (say, "b")),
        record.together((say, "c"), (look, 5)),
    )
    assert answers == ["ALONE", [8, "B"], ["C", 10]]


async def test_a_writer_that_is_cancelled_leaves_the_others_unharmed(
    record: GroupCommit, engine: Engine
) -> None:
    act = Counted()
    wishes = [asyncio.ensure_future(record.write(act, f"n{n}")) for n in range(10)]
    await asyncio.sleep(0)
    wishes[3].cancel()
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    assert sum(isinstance(t, str) for t in answers) == 9
    assert len(names(engine)) == 10


async def test_close_commits_what_was_written_before(engine: Engine) -> None:
    record, act = GroupCommit(engine), Counted()
    wishes = [asyncio.ensure_future(record.write(act, f"n{n}")) for n in range(700)]
    await asyncio.sleep(0)
    await record.close()
    assert len(await asyncio.gather(*wishes)) == 700
    assert len(names(engine)) == 700
    engine.dispose()
    assert "record" not in [thread.name for thread in threading.enumerate()]


async def test_a_locked_sqlite_is_waited_for(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url + "?timeout=0.05")
    migrate.upgrade(engine)
    record = GroupCommit(engine)
    other = open_engine(sqlite_url)
    try:
        with other.begin():
            wish = asyncio.ensure_future(record.write(Counted(), "patient"))
            done, _ = await asyncio.wait({wish}, timeout=0.4)
            assert not done
        assert await asyncio.wait_for(wish, 10 * BUSY) == "wrote patient"
    finally:
        await record.close()
        other.dispose()


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "stopped"])
async def test_a_postgresql_that_goes_and_comes_back_is_waited_for(
    postgres_factory: Callable[[], PostgresServer], kill: bool
) -> None:
    server = postgres_factory()
    engine = open_engine(server.url("postgres"))
    migrate.upgrade(engine)
    record, act = GroupCommit(engine), Counted()
    try:
        await record.write(act, "before")
        with engine.connect() as connection:
            connection.execute(text("CHECKPOINT"))  # the tests' server syncs nothing by itself
        await asyncio.to_thread(server.kill if kill else server.stop)
        wishes = [asyncio.ensure_future(record.write(act, f"n{n}")) for n in range(20)]
        done, _ = await asyncio.wait(wishes, timeout=0.3)
        assert not done
        await asyncio.to_thread(server.start)
        assert len(await asyncio.wait_for(asyncio.gather(*wishes), 20 * BUSY)) == 20
        assert len(names(engine)) == 21
    finally:
        await record.close()


async def test_postgresql_ending_the_session_repeats_the_transaction(
    postgres_url: str,
) -> None:
    engine = open_engine(postgres_url)
    migrate.upgrade(engine)
    record, act = GroupCommit(engine), Counted()
    cut = False

    def cut_once(connection: Connection, items: Sequence[str]) -> list[str]:
        nonlocal cut
        answers = act(connection, items)
        if not cut:
            cut = True
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return answers

    try:
        assert await record.write(cut_once, "once") == "wrote once"
        assert names(engine) == ["once"]
        assert len(act.groups) == 2
    finally:
        await record.close()
