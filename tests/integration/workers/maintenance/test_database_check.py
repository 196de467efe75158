"""A running worker notices that its database is another one, and ends; an outage is no reason."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from headgate.shared.database import identity, migrate
from headgate.shared.database.engine import writing
from headgate.shared.errors import SettingError
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.database_check import CONFIRM_S, DatabaseCheck
from tests.support.child import BUSY
from tests.support.servers import ValkeyServer

WITHIN_S = 20 * BUSY


class Watched:
    """One worker's check; `ended` is set when it ends the worker."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.engine = servers.engine()
        migrate.upgrade(self.engine)
        self.batcher = RedisBatcher(servers.async_redis_client(timeout_s=None))
        self.ended = asyncio.Event()
        self.check = DatabaseCheck(
            servers, self.engine, self.batcher, owner="w@here:1", period_s=0.1, end=self.ended.set
        )

    async def stored(self) -> bytes | None:
        """What Redis has as the id."""
        found: bytes | None = await self.batcher.send("GET", self.servers.keys.database())
        return found

    async def sees(self, value: bytes) -> bool:
        """Whether Redis has this as the id."""
        return await self.stored() == value

    async def is_noted(self) -> bool:
        """Whether Redis has why the worker ended."""
        return bool(await self.batcher.send("HLEN", self.servers.keys.strays()))

    async def some_rounds(self) -> None:
        """The check has had the time for several rounds."""
        await asyncio.sleep(1)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.05)


def move(file: Path, to: Path) -> None:
    """Move it without a turn for the check: if both wake late, what was due first goes first."""
    file.rename(to)


@asynccontextmanager
async def watched(server: ValkeyServer, url: str, home: Path) -> AsyncIterator[Watched]:
    made = Watched(Servers(Settings(redis_url=server.url, home=home), server.url, url))
    running = None
    try:
        await made.check.begin()
        running = asyncio.create_task(made.check.run())
        yield made
    finally:
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await made.check.close()
        await made.batcher.close()
        made.engine.dispose()


async def test_an_emptied_redis_gets_the_id_again(
    valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> None:
    async with watched(valkey, database_url, tmp_path) as worker:
        before = await worker.stored()
        assert before
        assert before.startswith(identity.id_of(worker.engine).encode())
        await worker.batcher.send("FLUSHALL")
        await until(lambda: worker.sees(before))
        assert not worker.ended.is_set()


async def test_a_database_that_was_made_anew_ends_the_worker(
    valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> None:
    async with watched(valkey, database_url, tmp_path) as worker:
        with writing(worker.engine) as connection:
            connection.execute(text("UPDATE database_id SET id = 'another'"))
        await asyncio.wait_for(worker.ended.wait(), WITHIN_S)
        await until(worker.is_noted)
        [note] = await worker.batcher.send("HVALS", worker.servers.keys.strays())
        assert b"was replaced by another" in note


async def test_another_id_in_redis_ends_the_worker_and_refuses_the_next(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    async with watched(valkey, sqlite_url, tmp_path) as worker:
        await worker.batcher.send("SET", worker.servers.keys.database(), "another postgresql://b/x")
        await asyncio.wait_for(worker.ended.wait(), WITHIN_S)
    with pytest.raises(SettingError, match=r"belongs to another database: postgresql://b/x"):
        async with watched(valkey, sqlite_url, tmp_path):
            pass


async def test_servers_that_do_not_answer_end_no_worker(
    valkey_factory: Callable[..., ValkeyServer], sqlite_url: str, tmp_path: Path
) -> None:
    server = valkey_factory()
    async with watched(server, sqlite_url, tmp_path) as worker:
        server.kill()
        await worker.some_rounds()
        server.start()
        with writing(worker.engine) as connection:
            connection.execute(text("ALTER TABLE database_id RENAME TO elsewhere"))
        await worker.some_rounds()
        with writing(worker.engine) as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO database_id"))
        await worker.some_rounds()
        assert not worker.ended.is_set()


async def test_a_file_that_is_away_for_a_moment_ends_no_worker(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    file = Path(sqlite_url.removeprefix("sqlite:///"))
    async with watched(valkey, sqlite_url, tmp_path) as worker:
        move(file, tmp_path / "away")
        await asyncio.sleep(CONFIRM_S / 4)
        move(tmp_path / "away", file)
        await asyncio.sleep(CONFIRM_S + 1)
        assert not worker.ended.is_set()
        move(file, tmp_path / "away")
        await asyncio.wait_for(worker.ended.wait(), WITHIN_S)
    names = await asyncio.to_thread(os.listdir, tmp_path)
    assert any(name.startswith("headgate.db.saved-") for name in names)
