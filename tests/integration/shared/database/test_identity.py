"""The id of a database: one for all, made once, the same in a backup."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select, text

from headgate.shared.database import identity, migrate
from headgate.shared.database.engine import open_engine, reading, writing
from headgate.shared.database.tables import database_id


def test_all_who_open_a_new_database_at_once_get_one_id(empty_database_url: str) -> None:
    first = open_engine(empty_database_url)
    migrate.upgrade(first)
    engines = [open_engine(empty_database_url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(identity.id_of, engines))
    assert len(found) == 1
    with reading(first) as connection:
        assert connection.scalar(select(func.count()).select_from(database_id)) == 1
    for engine in (first, *engines):
        engine.dispose()


def test_a_database_made_anew_has_another_id(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    migrate.upgrade(engine)
    before = identity.id_of(engine)
    assert identity.id_of(engine) == before
    migrate.downgrade(engine, "base")
    migrate.upgrade(engine)
    assert identity.id_of(engine) != before
    engine.dispose()


def test_an_upgrade_from_the_release_before_gives_an_id(empty_database_url: str) -> None:
    engine = open_engine(empty_database_url)
    migrate.upgrade(engine)
    migrate.downgrade(engine, "0003")
    with writing(engine) as connection:
        connection.execute(text("INSERT INTO callers (tenant, tier) VALUES ('a', 'pro')"))
    assert migrate.upgrade(engine)
    assert identity.id_of(engine)
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT count(*) FROM callers")) == 1
    engine.dispose()
