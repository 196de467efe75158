"""A SQLite file that is deleted, replaced or restored while a process has it open."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DBAPIError, OperationalError

from headgate.shared.database import identity, migrate, sqlite_file
from headgate.shared.database.engine import open_engine, passes, reaching, reading, writing
from headgate.shared.database.sqlite_file import Saver
from headgate.shared.database.tables import callers
from headgate.shared.errors import Unreachable

COUNT = text("SELECT count(*) FROM callers")
COPY = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('VACUUM INTO ?', sys.argv[2:])"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "headgate.db"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{file}")
    migrate.upgrade(opened)
    identity.id_of(opened)
    add(opened, "first")
    yield opened
    opened.dispose()


def add(engine: Engine, tenant: str) -> None:
    """One more row is in the table of callers."""
    with writing(engine) as connection:
        connection.execute(insert(callers).values(tenant=tenant, tier="pro"))


def count(engine: Engine) -> int:
    """How many rows the table of callers has."""
    with reading(engine) as connection:
        return int(connection.scalar(COUNT) or 0)


def saver_of(engine: Engine) -> Saver:
    """The engine's file can be saved; the engine has another connection, to write with."""
    file = sqlite_file.of(engine)
    assert file
    saver = Saver(engine, file)
    assert count(engine)
    return saver


def copy(file: Path, target: Path) -> None:
    """Another process has made a backup: closing it here would drop our own locks."""
    subprocess.run([sys.executable, "-c", COPY, str(file), str(target)], check=True)


def remove(file: Path) -> None:
    """The file is gone with its companions."""
    for ending in ("", "-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)


def is_refused(engine: Engine, word: str) -> None:
    """Neither reads nor writes reach the lost file, and none opens another one."""
    for act in (lambda: count(engine), lambda: add(engine, "x")):
        with pytest.raises(OperationalError, match=f"was {word} while it was in use") as caught:
            act()
        assert passes(caught.value), "a worker holds what it has to record"
        assert sqlite_file.lost(caught.value)


def test_a_deleted_file_is_neither_written_nor_made_anew(engine: Engine, file: Path) -> None:
    remove(file)
    is_refused(engine, "deleted")
    with pytest.raises(Unreachable, match="end this process"), reaching(str(engine.url)):
        count(engine)
    with pytest.raises(sqlite_file.FileLost):
        [engine.raw_connection() for _ in range(6)]  # more than are open
    assert not file.exists()


def test_a_file_that_was_moved_away_and_back_is_the_same(engine: Engine, file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    is_refused(engine, "deleted")
    file.with_name("elsewhere").rename(file)
    add(engine, "second")
    assert count(engine) == 2


def test_a_file_replaced_by_another_database_is_refused(engine: Engine, file: Path) -> None:
    remove(file)
    other = open_engine(f"sqlite:///{file}")
    migrate.upgrade(other)
    assert identity.id_of(other)
    is_refused(engine, "replaced by another")
    assert count(other) == 0
    other.dispose()


def test_a_backup_with_the_same_id_is_opened_in_its_place(engine: Engine, file: Path) -> None:
    copy(file, file.with_name("backup"))
    add(engine, "lost with the old file")
    remove(file)
    file.with_name("backup").rename(file)
    add(engine, "third")
    assert count(engine) == 2
    with closing(sqlite3.connect(file)) as now:
        assert now.execute("SELECT count(*) FROM callers").fetchone() == (2,)


def test_a_backup_beside_companions_of_the_lost_file_is_not_opened(
    engine: Engine, file: Path
) -> None:
    copy(file, file.with_name("backup"))
    file.with_name("backup").replace(file)
    is_refused(engine, "replaced by another")


def test_a_new_file_does_not_share_the_companions_of_a_deleted_one(
    engine: Engine, file: Path
) -> None:
    saver = saver_of(engine)
    file.unlink()
    assert Path(f"{file}-shm").exists()
    other = open_engine(f"sqlite:///{file}")
    migrate.upgrade(other)
    add(other, "of the new file")
    saver.leave()
    for number in range(50):
        add(engine, f"of the old file {number}")
    assert count(engine) == 51
    assert count(other) == 1
    for opened in (engine, other):
        with reading(opened) as connection:
            assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
    other.dispose()
    saver.close()


def test_a_lost_file_is_saved_with_what_was_recorded_at_last(engine: Engine, file: Path) -> None:
    name = identity.id_of(engine)
    saver = saver_of(engine)
    add(engine, "second")
    remove(file)
    saver.leave()
    add(engine, "answer in hand")
    engine.dispose()
    target = saver.save()
    saver.close()
    assert target == file.with_name(f"headgate.db.saved-{name[:8]}")
    assert target.stat().st_mode & 0o777 == 0o600
    assert {one.name for one in file.parent.iterdir()} & {"headgate.db"} == set()
    saved = open_engine(f"sqlite:///{target}")
    assert count(saved) == 3
    assert identity.id_of(saved) == name
    saved.dispose()


def test_a_linked_file_is_looked_for_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "file.db")
    opened = open_engine(f"sqlite:///{tmp_path}/link.db")
    migrate.upgrade(opened)
    identity.id_of(opened)
    file = sqlite_file.of(opened)
    assert file
    assert file.index, "its wal-index lies beside the real file"
    copy(tmp_path / "real" / "file.db", tmp_path / "backup")
    add(opened, "a")
    remove(tmp_path / "real" / "file.db")
    is_refused(opened, "deleted")
    (tmp_path / "backup").rename(tmp_path / "real" / "file.db")
    assert count(opened) == 0
    opened.dispose()


def test_a_relative_path_is_the_same_file_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opened = open_engine("sqlite:///mine.db")
    migrate.upgrade(opened)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    add(opened, "a")
    assert count(opened) == 1
    opened.dispose()


def test_other_errors_are_not_about_a_lost_file() -> None:
    assert sqlite_file.lost(ValueError()) is None
    assert sqlite_file.lost(DBAPIError("x", None, ValueError())) is None
