"""A lock for writing a SQLite file, so that the writers of all processes take turns.

SQLite has one writer at a time, and the others poll with growing pauses: with four workers some
waited for seconds. The kernel's file lock passes to the next one at once, and ends with its holder.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError


@contextmanager
def turn(database: str, within_s: float) -> Iterator[None]:
    """Hold the lock for writing `database`; raises OperationalError if it is not free in time."""
    file = os.open(f"{database}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file = _queue_for(file, within_s)
    try:
        yield
    finally:
        os.close(file)


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
