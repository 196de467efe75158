"""The command `alembic` in a checkout works on the database that the settings name."""

import sys
from collections.abc import Callable

import pytest
from sqlalchemy import inspect, text

from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from tests import ROOT
from tests.support.command import Ended, program

PROGRAM = [sys.executable, "-c", "from alembic.config import main; main()"]

Alembic = Callable[..., Ended]


def run(url: str, *words: str) -> Ended:
    return program([*PROGRAM, *words], {"HEADGATE_DATABASE_URL": url}, cwd=ROOT)


@pytest.fixture
def alembic(empty_database_url: str) -> Alembic:
    return lambda *words: run(empty_database_url, *words)


def test_it_tells_upgrades_checks_and_downgrades(empty_database_url: str, alembic: Alembic) -> None:
    assert alembic("current") == Ended(0, "", "")
    assert alembic("upgrade", "head").code == 0
    assert alembic("current").out == f"{migrate.NEWEST} (head)\n"
    assert "No new upgrade operations" in alembic("check").out
    assert alembic("history").out.count("->") == len(migrate.revisions())
    assert alembic("downgrade", "base").code == 0
    engine = open_engine(empty_database_url)
    try:
        assert inspect(engine).get_table_names() == ["alembic_version"]
    finally:
        engine.dispose()


def test_check_finds_what_is_missing_and_leaves_out_tables_of_others(
    empty_database_url: str, alembic: Alembic
) -> None:
    assert alembic("upgrade", "head").code == 0
    engine = open_engine(empty_database_url)
    try:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE of_others (id INTEGER)"))
        assert "No new upgrade operations" in alembic("check").out
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE callers"))
    finally:
        engine.dispose()
    ended = alembic("check")
    assert ended.code != 0
    assert "callers" in ended.out + ended.err


def test_it_writes_the_statements_without_a_database() -> None:
    ended = run("postgresql://nobody@nowhere.invalid/none", "upgrade", "head", "--sql")
    assert ended.code == 0, ended.err
    assert "CREATE TABLE jobs" in ended.out
