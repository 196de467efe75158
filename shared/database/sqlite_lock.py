"""A lock for writing a SQLite file, so that the writers of all processes take turns.

SQLite has one writer at a time, and the others poll with growing pauses: with four workers some
waited for seconds. The kernel's file lock passes to the next one at once, and ends with its holder.

The lock file stays open for the life of the process. So a process that has no file handle left can
still record what it has paid for.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError

MOST = 4
"""Most files that stay open. A process has one database; tests have many."""

_spare: dict[str, int] = {}
"""The lock file by its path, while nobody of this process holds it. A second writer of the process
opens another one, since the kernel gives a lock to an open file, not to a thread."""

_held: set[int] = set()

_guard = threading.Lock()


def _close_after_fork() -> None:
    """Close the parent's files in a forked child: it would share their locks."""
    global _guard
    _guard = threading.Lock()  # another thread of the parent may have held it
    for file in (*_spare.values(), *_held):
        with suppress(OSError):
            os.close(file)
    _spare.clear()
    _held.clear()


os.register_at_fork(after_in_child=_close_after_fork)


@contextmanager
def turn(database: str, within_s: float) -> Iterator[None]:
    """Hold the lock for writing `database`; raises OperationalError if it is not free in time."""
    path, pid = f"{database}.turn", os.getpid()
    file = _take(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _held.discard(file)
        file = _queue_for(file, within_s)
        _held.add(file)
    except OSError:
        _held.discard(file)
        os.close(file)
        raise
    try:
        yield
    finally:
        if os.getpid() == pid:
            _give_back(path, file)


def close(database: str) -> None:
    """Close the lock file of this database, unless it is held."""
    with _guard:
        file = _spare.pop(f"{database}.turn", None)
    if file is not None:
        os.close(file)


def _take(path: str) -> int:
    """Return an open lock file that nobody else of this process uses."""
    with _guard:
        file = _spare.pop(path, None)
    if file is not None and not _is_at(path, file):
        os.close(file)
        file = None
    if file is None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    _held.add(file)
    return file


def _is_at(path: str, file: int) -> bool:
    """Return whether this file is still the one at the path: other processes lock that one."""
    try:
        return os.path.samestat(os.fstat(file), Path(path).stat())
    except FileNotFoundError:
        return False


def _give_back(path: str, file: int) -> None:
    """Release the lock, and leave the file open for the next turn."""
    _held.discard(file)
    fcntl.flock(file, fcntl.LOCK_UN)
    with _guard:
        too_many = [_spare.pop(path)] if path in _spare else []
        if len(_spare) >= MOST:
            too_many.append(_spare.pop(next(iter(_spare))))
        _spare[path] = file
    for other in too_many:
        os.close(other)


def _queue_for(file: int, within_s: float) -> int:
    """Return the file once it is locked.

    flock waits without a bound, so it runs in a thread that this one can leave behind.
    """
    got, gone = threading.Event(), threading.Event()
    handing_over = threading.Lock()

    def wait() -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
        with handing_over:
            got.set()
            if gone.is_set():
                os.close(file)

    threading.Thread(target=wait, name="turn", daemon=True).start()
    is_ours = False
    try:
        is_ours = got.wait(within_s)
    finally:
        with handing_over:
            if not is_ours:
                gone.set()
                if got.is_set():
                    os.close(file)
    if not is_ours:
        why = f"it is locked: another process has been writing for {within_s:g} s"
        raise OperationalError("BEGIN", None, sqlite3.OperationalError(why))
    return file
