"""Migrations: up, down and up again with rows in the tables; the same as the metadata; run once."""

import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, func, insert, inspect, select

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import (
    attempts,
    audit,
    batches,
    callbacks,
    callers,
    database_id,
    gateway_keys,
    idempotency,
    job_metadata,
    jobs,
    metadata,
    usage_days,
    usage_summed,
    webhook_deliveries,
    webhook_tenants,
)
from headgate.shared.errors import Unreachable
from tests.releases.coming import MIGRATION, make_next
from tests.support.child import ChildProcess
from tests.support.rig import envelope

UPGRADE = """
import os
import sys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
start, at_once = os.pipe()
for _ in range(10):
    if os.fork() == 0:
        engine = open_engine(sys.argv[1])
        os.close(at_once)
        os.read(start, 1)
        print("did it" if migrate.upgrade(engine) else "was done", flush=True)
        engine.dispose()
        os._exit(0)
os.close(at_once)
for _ in range(10):
    assert os.wait()[1] == 0
"""


@pytest.fixture
def engine(empty_database_url: str) -> Engine:
    return open_engine(empty_database_url)


def fill(engine: Engine) -> None:
    """One row is in each table."""
    job = envelope()
    with engine.begin() as connection:
        connection.execute(insert(jobs).values(job_row(job, job.encode())))
        connection.execute(
            insert(attempts).values(
                job_id=job.id, fence=1, n=1, model="m", provider="p", state="open",
                started_at_ms=1, waited_ms=0,
            )
        )  # fmt: skip
        counts = dict.fromkeys(
            ("attempts", "unknown_attempts", "input_tokens", "cached_input_tokens",
             "cache_write_tokens", "output_tokens", "reasoning_tokens", "submitted_at_ms",
             "finished_at_ms"), 2**31,
        )  # fmt: skip
        counts["attempts"] = counts["unknown_attempts"] = 1
        words = {"job_id": job.id, "status": "failed", "priority": "bulk", "tenant": "t"}
        connection.execute(insert(audit).values(**words, model="m", fallback=False, **counts))
        connection.execute(
            insert(batches).values(
                id="b", input_path="in", input_sha256="0", defaults="{}", lines=1, bad_lines=0,
                created_at_ms=2**40,
            )
        )  # fmt: skip
        connection.execute(insert(callbacks).values(job_id=job.id, due_at_ms=2**40))
        found_by = {"key": "run", "value": "7", "job_id": job.id}
        connection.execute(insert(job_metadata).values(**found_by))
        connection.execute(insert(callers).values(tenant="acme", tier="pro"))
        key = {"tenant": "acme", "key": "k", "body_sha256": "0", "created_at_ms": 2**40}
        connection.execute(insert(idempotency).values(job_id=job.id, **key))
        summed = {column.name: 2**40 for column in usage_days.c if column.type.python_type is int}
        names = dict.fromkeys(("tenant", "user_id", "model", "template", "batch_id"), "")
        values = {**summed, **names, "day": 20261121, "latencies": b""}
        connection.execute(insert(usage_days).values(**values))
        counted = {"day": 20261121, "lines": 1, "summed_at_ms": 2**40}
        connection.execute(insert(usage_summed).values(**counted))
        connection.execute(insert(database_id).values(one=1, id="an id"))
        hook = {"tenant": "acme", "secret": "whsec_", "created_at_ms": 2**40}
        connection.execute(insert(webhook_tenants).values(**hook, url="https://a.example/"))
        event = {"id": "evt_1", "tenant": "acme", "event": "job.failed", "body": "{}"}
        times = {"created_at_ms": 2**40, "due_at_ms": 2**40, "until_ms": 2**40}
        connection.execute(insert(webhook_deliveries).values(**event, **times, state="pending"))
        flags = {"any_user": True, "any_tenant": False, "scopes": "[]", "origins": "[]"}
        words = {"id": "hgk_1", "name": "web", "tenant": "acme", "secret_sha256": "0"}
        connection.execute(insert(gateway_keys).values(**words, **flags, created_at_ms=2**40))


def tables(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def test_up_down_and_up_again_with_rows_in_the_tables(engine: Engine) -> None:
    assert migrate.upgrade(engine)
    assert not migrate.upgrade(engine)
    fill(engine)
    migrate.downgrade(engine, "base")
    assert tables(engine) <= {"alembic_version"}
    assert migrate.upgrade(engine)
    fill(engine)
    with engine.connect() as connection:
        for table in metadata.sorted_tables:
            assert connection.scalar(select(func.count()).select_from(table)) == 1
    engine.dispose()


def test_upgrading_the_newest_keeps_its_rows(engine: Engine) -> None:
    migrate.upgrade(engine)
    fill(engine)
    migrate.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(jobs)) == 1
    engine.dispose()


def test_the_migrations_make_what_the_metadata_says(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        compared = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(compared, metadata) == []
    engine.dispose()


def test_a_database_without_tables_is_refused_with_its_remedy(engine: Engine) -> None:
    with pytest.raises(Unreachable, match="headgate db upgrade"):
        migrate.require_fit(engine)
    migrate.upgrade(engine)
    migrate.require_fit(engine)
    engine.dispose()


def test_ten_processes_that_upgrade_at_once_do_a_slow_migration_once(
    empty_database_url: str, engine: Engine, tmp_path: Path
) -> None:
    migrate.upgrade(engine)
    fill(engine)
    engine.dispose()
    step = '    op.create_table("moods"'
    slow = "import time\n" + MIGRATION.replace(step, f"    time.sleep(2)\n{step}")
    env = {"PYTHONPATH": str(make_next(tmp_path / "next", migration=slow))}
    argv = [sys.executable, "-c", UPGRADE, empty_database_url]
    together = ChildProcess(argv, env=env, log_path=tmp_path / "together.log")
    together.run()
    told = sorted(together.log().splitlines())
    assert told == ["did it"] + ["was done"] * 9
