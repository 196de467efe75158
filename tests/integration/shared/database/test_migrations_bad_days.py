"""Migrations that are slow, killed, or of another release; what `headgate db check` reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from headgate.producer.admin import schema_diff
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.tables import metadata
from headgate.shared.errors import Unreachable
from tests.integration.shared.database.test_migrations import fill
from tests.releases.coming import MIGRATION, REVISION, make_next
from tests.support import installation
from tests.support.child import ChildFailed, wait_until
from tests.support.command import headgate
from tests.support.servers import ValkeyServer

FURTHER = f"{int(REVISION) + 1:04d}"


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    """Today's tables, with a row in each."""
    engine = open_engine(empty_database_url)
    migrate.upgrade(engine)
    fill(engine)
    yield engine
    engine.dispose()


def rows(engine: Engine) -> dict[str, list[str]]:
    """All that is in the tables, as far as this release knows it."""
    with engine.connect() as connection:
        return {
            name: [str(row) for row in connection.execute(table.select())]
            for name, table in metadata.tables.items()
        }


def test_a_migration_killed_half_way_has_changed_nothing_and_can_be_run_again(
    engine: Engine, empty_database_url: str, tmp_path: Path
) -> None:
    reached = tmp_path / "reached"
    pause = f"    __import__('pathlib').Path({str(reached)!r}).touch()\n"
    pause += "    __import__('time').sleep(60)\n"
    index = '    op.create_index("jobs_by_mood"'
    tree = make_next(tmp_path / "next", migration=MIGRATION.replace(index, pause + index))
    before = rows(engine)
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_DATABASE_URL": empty_database_url,
        "PYTHONPATH": str(tree),
    }
    upgrading = installation.command(["db", "upgrade"], env, tmp_path / "upgrade.log")
    with installation.ended_afterwards(upgrading):
        upgrading.start()
        wait_until(reached.exists, 30, "the middle of the migration")
        upgrading.kill()
    with engine.connect() as connection:
        assert migrate.revision(connection) == migrate.NEWEST
        assert schema_diff.differences(connection) == []
    assert rows(engine) == before

    quick = tree / "headgate" / "migrations" / "versions" / f"{REVISION}_next.py"
    quick.write_text(quick.read_text().replace(pause, ""))
    assert f"upgraded to {REVISION}" in headgate(["db", "upgrade"], env).out
    assert rows(engine) == before
    assert headgate(["db", "check"], env).code == 0
    assert headgate(["db", "downgrade", migrate.NEWEST, "--yes"], env).code == 0
    assert rows(engine) == before


def test_the_next_revision_fits_and_one_further_is_refused_with_its_remedy(engine: Engine) -> None:
    mark(engine, REVISION)
    migrate.require_fit(engine)
    assert not migrate.upgrade(engine)
    mark(engine, FURTHER)
    for act in (migrate.require_fit, migrate.upgrade):
        with pytest.raises(Unreachable, match=f"at {FURTHER}.*newer headgate"):
            act(engine)
    mark(engine, None)
    with pytest.raises(Unreachable, match="headgate db upgrade"):
        migrate.require_fit(engine)


def mark(engine: Engine, revision: str | None) -> None:
    """Write this revision into the tables."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        if revision:
            connection.execute(text(f"INSERT INTO alembic_version VALUES ('{revision}')"))  # noqa: S608 (our own)


def test_nothing_starts_on_tables_two_releases_ahead(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    mark(engine, FURTHER)
    engine.dispose()
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
    }
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker), pytest.raises(ChildFailed, match="newer headgate"):
        worker.start()
    for words, code in (
        (["db", "check"], 1), (["db", "upgrade"], 3), (["submit", "x"], 3),
        (["db", "downgrade", "base", "--yes"], 2),
    ):  # fmt: skip
        ended = headgate(words, env)
        assert ended.code == code, (words, ended)
        assert "newer headgate" in ended.out + ended.err
        assert "Traceback" not in ended.err


def test_the_check_reports_what_differs_and_whether_it_harms(
    engine: Engine, empty_database_url: str, tmp_path: Path
) -> None:
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_DATABASE_URL": empty_database_url}
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE of_another_program (id INTEGER)"))
        connection.execute(text("ALTER TABLE jobs ADD COLUMN extra INTEGER"))
    fine = headgate(["db", "check", "--json"], env)
    assert (fine.code, fine.document["differences"]) == (
        0,
        ["column jobs.extra is unknown to this release"],
    )
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX jobs_open"))
        connection.execute(text("ALTER TABLE jobs DROP COLUMN worker"))
        connection.execute(text("DROP TABLE batches"))
    harmed = headgate(["db", "check"], env)
    assert harmed.code == 1
    for told in (
        "index jobs_open on jobs is missing", "column jobs.worker is missing",
        "table batches is missing",
    ):  # fmt: skip
        assert told in harmed.out.splitlines(), harmed
    assert "of_another_program" not in harmed.out


@pytest.mark.parametrize("empty_database_url", ["postgresql"], indirect=True)
def test_the_check_reports_changed_columns(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE batches SET output_path = 'x'"))
        connection.execute(text("ALTER TABLE jobs ALTER COLUMN fence DROP DEFAULT"))
        connection.execute(text("ALTER TABLE jobs ALTER COLUMN tenant TYPE varchar(9)"))
        connection.execute(text("ALTER TABLE batches ALTER COLUMN output_path SET NOT NULL"))
    with engine.connect() as connection:
        told = {one.text: one.harms for one in schema_diff.differences(connection)}
    assert told == {
        "column jobs.fence: default: should be 0, is none": True,
        "column jobs.tenant: type: should be VARCHAR(128), is VARCHAR(9)": True,
        "column batches.output_path: NULL allowed: should be yes, is no": True,
    }
