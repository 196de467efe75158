"""Notices that a SQLite file was deleted or replaced while a process has it open.

SQLite itself would go on with the file that no path leads to any more: what it writes there is lost
with the process, and every other process has another database.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, OperationalError


class FileLost(sqlite3.OperationalError):
    """The open SQLite file is not the one at its path: it was deleted or replaced."""


@dataclass(slots=True, eq=False)
class OpenFile:
    """The SQLite file of one engine, as it was at the engine's first connection.

    `index`: its wal-index, which all processes share. `is_left`: the process ends, and writes what
    it still has to the file that it has open.
    """

    path: Path
    found: os.stat_result | None = None
    index: os.stat_result | None = None
    database_id: str | None = None
    is_left: bool = False

    def connecting(self) -> None:
        """Create the file if there is none; raise FileLost if another one is at its path."""
        if self.found is None:
            with suppress(OSError):
                _create(self.path)
        elif (why := self.fault()) is not None:
            raise FileLost(why)

    def connected(self) -> None:
        """Remember which file is open now."""
        if self.found is None:
            with suppress(OSError):
                self.found = self.path.stat()

    def look_at_index(self) -> None:
        """Remember the wal-index; SQLite opens it at the first read or write."""
        with suppress(OSError):
            self.index = _beside(self.path, "-shm").stat()

    def fault(self) -> str | None:
        """Return what happened to the open file; None if it is still at its path."""
        if self.found is None:
            return None
        try:
            if os.path.samestat(self.found, self.path.stat()):
                return None
        except FileNotFoundError:
            return f"the file {self.path} was deleted while it was in use"
        except OSError:
            return None  # no answer is no fault: opening the file tells what is wrong
        return f"the file {self.path} was replaced by another while it was in use"

    def is_restored(self) -> bool:
        """Return whether the file at the path is the same database, from a backup say.

        While the wal-index of the lost file lies beside it, nobody can tell: opening the new file
        would mix both.
        """
        if self.database_id is None or self.index is None:
            return False
        with suppress(FileNotFoundError):
            if os.path.samestat(_beside(self.path, "-shm").stat(), self.index):
                return False
        return _id_in(self.path) == self.database_id


def of(engine: Engine) -> OpenFile | None:
    """Return the file of this engine; None if the engine has none."""
    found: OpenFile | None = engine.get_execution_options().get("file")
    return found


def require(engine: Engine) -> None:
    """Raise OperationalError, made from FileLost, if the open file is not the one at its path.

    A file with the same database is opened in its place.
    """
    file = of(engine)
    if file is None or file.is_left or (why := file.fault()) is None:
        return
    if not file.is_restored():
        raise OperationalError("BEGIN", None, FileLost(why))
    engine.dispose()
    file.found = None


def lost(error: BaseException) -> str | None:
    """Return what happened to the SQLite file if the error is about that."""
    found = error.orig if isinstance(error, DBAPIError) else None
    return str(found) if isinstance(found, FileLost) else None


def place_to_save(path: Path, database_id: str) -> Path:
    """Return where a lost file of this path, with this database, is saved."""
    return _beside(path, f".saved-{database_id[:8]}")


class Saver:
    """Holds one connection with the file of an engine, so that the file can be saved if it is lost.

    Nobody can open a deleted file again. Make it before; `close` it, or `leave` and then `save`.
    """

    def __init__(self, engine: Engine, file: OpenFile) -> None:
        self._file = file
        self._found = file.found
        self._held = engine.raw_connection()

    @property
    def is_current(self) -> bool:
        """Whether it holds the file that the engine has open."""
        return self._found is self._file.found

    def leave(self) -> None:
        """Let the process record what it has in hand in the file that it has open."""
        self._file.is_left = True

    def save(self) -> Path:
        """Copy the open file beside its path, under a name of its own; return where."""
        target = place_to_save(self._file.path, self._file.database_id or "unnamed")
        _copy(self._held.driver_connection, target)
        return target

    def close(self) -> None:
        """Give the connection back."""
        self._held.close()


def _copy(opened: Any, target: Path) -> None:
    """Copy the database of this connection to the target, whole or not at all.

    One process at a time: the last copy has what all others have recorded.
    """
    part = _beside(target, ".part")
    with _locked(target.parent):
        part.unlink(missing_ok=True)
        os.close(os.open(part, _NEW_FILE, 0o600))
        try:
            with closing(sqlite3.connect(part)) as copy:
                opened.backup(copy)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def _beside(path: Path, ending: str) -> Path:
    """Return the path with this ending, where SQLite has it: beside the file, not beside a link."""
    return Path(os.path.realpath(path) + ending)


def _create(path: Path) -> None:
    """Create the file if it is missing, with private rights; its companions get the same.

    A deleted file may have left its companions, and a process may have them open. SQLite would use
    them for the new file and spoil both databases, so they go first.
    """
    if path.exists():
        return
    with _locked(path.parent):
        if path.exists():
            return
        for ending in ("-wal", "-shm"):
            _beside(path, ending).unlink(missing_ok=True)
        os.close(os.open(path, _NEW_FILE, 0o600))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time run the block, where the folder can be locked."""
    file = None
    with suppress(OSError):
        file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if file is not None:
            os.close(file)


def _id_in(path: Path) -> str | None:
    """Return the id of the database in this file; None if it has none or cannot be read."""
    # Never with `open`: closing a file would release all locks that this process has on it.
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as opened:
            row = opened.execute("SELECT id FROM database_id").fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])
