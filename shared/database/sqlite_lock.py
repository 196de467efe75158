"""The turn to write a SQLite file, handed on by the kernel.

SQLite has one writer, and those who wait for it poll with growing pauses: with four workers some
waited for seconds. A lock of the kernel hands the turn on at once, and ends with its holder.
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
    """It is this thread's turn to write; OperationalError if it does not come `within_s`."""
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
    """The file, locked. flock waits in turn but without a bound, so a thread waits for us."""
    got, gone = threading.Event(), threading.Event()
    handing_over = threading.Lock()

    def wait() -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
        with handing_over:
            got.set()
            if gone.is_set():
                os.close(file)

    threading.Thread(target=wait, name="turn", daemon=True).start()
    mine = False
    try:
        mine = got.wait(within_s)
    finally:
        with handing_over:
            if not mine:
                gone.set()
                if got.is_set():
                    os.close(file)
    if not mine:
        why = f"it is locked: another process has been writing for {within_s:g} s"
        raise OperationalError("BEGIN", None, sqlite3.OperationalError(why))
    return file
