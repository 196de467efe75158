"""A worker prunes the record: in its turn, a little at a time, and by no clock that is ahead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.shared.job.ids import now_ms
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.prune_record import RecordPrune
from tests.support.child import BUSY, wait_until
from tests.support.old_rows import ids_in, put_job
from tests.support.servers import ValkeyServer


class Archive:
    """The record of one installation, and what its workers prune in it."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.engine = servers.engine()
        self.batcher = RedisBatcher(servers.async_redis_client())

    def pruning(
        self, owner: str = "w", keep_days: int = 30, ahead_ms: int = 0, round_s: float = 60
    ) -> RecordPrune:
        return RecordPrune(
            self.batcher, self.servers.keys, self.engine, owner, lambda: now_ms() + ahead_ms,
            keep_days, 400, look_s=0.05, round_s=round_s,
        )  # fmt: skip

    def jobs(self) -> set[str]:
        return ids_in(self.engine, "jobs")


@pytest.fixture
async def archive(
    valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> AsyncIterator[Archive]:
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    in_force = Settings(redis_url=valkey.url, database_url=database_url, home=tmp_path)
    archive = Archive(Servers(in_force, valkey.url, database_url))
    yield archive
    await archive.batcher.close()
    # A round that was cancelled leaves its query to end in its thread.
    await asyncio.get_running_loop().shutdown_default_executor()
    archive.engine.dispose()


def days_ago(days: float) -> int:
    return now_ms() - int(days * DAY_MS)


async def test_a_round_deletes_what_the_settings_keep_no_longer_and_logs_it(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    ancient, old, young = (put_job(archive.engine, days_ago(n)) for n in (402, 31, 29))
    with caplog.at_level(logging.INFO, "headgate.prune"):
        assert await archive.pruning().round()
    assert archive.jobs() == {young}
    assert ids_in(archive.engine, "audit") == ids_in(archive.engine, "attempts") == {old, young}
    assert ancient not in ids_in(archive.engine, "attempts")
    [line] = [record.getMessage() for record in caplog.records]
    assert line == ("deleted rows that are kept no longer: 2 of jobs, 1 of audit, 1 of attempts")


async def test_a_clock_that_is_years_ahead_deletes_nothing(archive: Archive) -> None:
    young = put_job(archive.engine, days_ago(1))
    assert await archive.pruning(ahead_ms=4000 * DAY_MS).round()
    assert archive.jobs() == {young}


async def test_a_round_that_is_out_of_time_goes_on_where_it_stopped(archive: Archive) -> None:
    for n in range(150):
        put_job(archive.engine, days_ago(40) + n)
    pruning, rounds = archive.pruning(round_s=0), 1
    while not await pruning.round():
        rounds += 1
    assert rounds > 1
    assert archive.jobs() == set()


async def test_only_the_worker_with_the_turn_prunes_and_only_with_a_bound(
    archive: Archive, valkey: ValkeyServer
) -> None:
    put_job(archive.engine, days_ago(40))
    with valkey.client() as client:
        client.set(archive.servers.keys.sweeper(), "first")
        forever = archive.pruning("first", keep_days=0)
        await asyncio.wait_for(forever.keep(), 10 * BUSY)
        second = asyncio.create_task(archive.pruning("second").keep())
        await asyncio.sleep(0.5)
        assert len(archive.jobs()) == 1
        client.set(archive.servers.keys.sweeper(), "second")
        await asyncio.to_thread(wait_until, lambda: not archive.jobs(), 30, "the job to go")
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
