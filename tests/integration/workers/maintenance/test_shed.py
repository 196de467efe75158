"""Maintenance makes prompts and answers go whose callers want nothing to be stored."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from sqlalchemy import Engine, insert, select

from headgate.producer.results import on_record
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.shed import mark_unstored
from headgate.shared.database.tables import audit, job_metadata, jobs
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.shed import AFTER_MS, Shed
from tests.support.old_rows import put_job
from tests.support.servers import ValkeyServer

NOW_MS = 1_800_000_000_000
OLD_MS = NOW_MS - AFTER_MS - 1


def stored(engine: Engine) -> set[str]:
    """The jobs with a prompt or an answer."""
    with reading(engine) as connection:
        rows = connection.execute(select(jobs.c.id, jobs.c.envelope, jobs.c.result)).all()
    return {row.id for row in rows if row.envelope is not None or row.result is not None}


async def test_a_round_sheds_more_than_one_transaction_holds(
    engine: Engine, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate.workers.maintenance.shed.AT_ONCE", 2)
    for n in range(5):
        put_job(engine, OLD_MS, job_id=f"old-{n}", result="{}")
    with writing(engine) as connection:
        for n in range(5):
            mark_unstored(connection, f"old-{n}")
    batcher = RedisBatcher(Redis.from_url(valkey.url))
    try:
        assert await Shed(engine, batcher, Keys(""), lambda: NOW_MS).round() == 5
    finally:
        await batcher.close()
    assert stored(engine) == set()


async def test_what_has_ended_a_minute_ago_and_is_not_to_be_stored_goes(
    engine: Engine, valkey: ValkeyServer
) -> None:
    keys = Keys("")
    for name, ended_ms in (("old", OLD_MS), ("new", NOW_MS), ("open", None), ("kept", OLD_MS)):
        put_job(engine, ended_ms, job_id=name, result="{}")
    with writing(engine) as connection:
        for name in ("old", "new", "open", "open"):
            mark_unstored(connection, name)
        pair = {"key": "run", "value": "7", "job_id": "old"}
        connection.execute(insert(job_metadata), [pair])
    with valkey.client() as client:
        client.set(keys.result("old"), "{}")
        client.set(keys.result("kept"), "{}")
        batcher = RedisBatcher(Redis.from_url(valkey.url))
        try:
            shed = Shed(engine, batcher, keys, lambda: NOW_MS)
            assert await shed.round() == 1
            assert await shed.round() == 0
        finally:
            await batcher.close()
        assert stored(engine) == {"new", "open", "kept"}
        assert client.exists(keys.result("old"), keys.result("kept")) == 1
        on_record.shed(engine, client, keys, ["kept", "open"])
    assert stored(engine) == {"new", "open"}
    with reading(engine) as connection:
        assert len(connection.execute(select(audit)).all()) == 3
        pairs = connection.execute(select(job_metadata.c.key, job_metadata.c.job_id)).all()
    assert {tuple(pair) for pair in pairs} == {
        ("response.store", "new"), ("response.store", "open"),
    }  # fmt: skip
