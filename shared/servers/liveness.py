"""The liveness file of a worker: its event loop writes it every second, `headgate alive` reads it.

The worker holds a lock on `<home>/alive/<host name>/<node name>` for its whole life. The file holds
the monotonic clock at the last beat. So clock jumps and files of killed workers do no harm. No
server is asked: an outage must not make a supervisor restart every worker.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

BEAT_S = 1.0

STALE_S = 15.0
"""An event loop without a beat for this long hangs; a busy one is late by less than 1 s."""

LOCK_TRIES = 20
LOCK_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class WorkerSign:
    """A running worker process, and how long ago its event loop last ran."""

    node: str
    age_s: float

    @property
    def is_alive(self) -> bool:
        """Whether its event loop runs."""
        return self.age_s < STALE_S


class LivenessFile:
    """The file of this worker; raises OSError if another worker with this name runs."""

    def __init__(self, home: Path, node: str) -> None:
        folder = _folder(home)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _delete_stale(folder)
        self._path = folder / quote(node, safe="@")
        self._file = _open_locked(self._path)
        self.beat()

    def beat(self) -> None:
        """Record that the event loop runs now."""
        os.pwrite(self._file, f"{time.monotonic():020.3f}".encode(), 0)

    def close(self) -> None:
        """Delete the file and release its lock."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def signs(home: Path) -> list[WorkerSign]:
    """Return the running workers of this machine in this home."""
    found = []
    for path in sorted(_folder(home).glob("*")):
        try:
            with path.open("rb") as file:
                if not _is_locked(file.fileno()):
                    continue
                beat_at = float(file.read(20) or 0)
        except (OSError, ValueError):  # just deleted, or being written
            continue
        found.append(WorkerSign(unquote(path.name), max(0.0, time.monotonic() - beat_at)))
    return found


def _folder(home: Path) -> Path:
    # By host name: a container must not count the workers of others on a shared volume.
    return home / "alive" / quote(socket.gethostname(), safe="")


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _open_locked(path: Path) -> int:
    """Open and lock the file at this path; retry, since a reader holds the lock for a moment."""
    for _ in range(LOCK_TRIES):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):  # otherwise deleted in between
                return file
        os.close(file)
        time.sleep(LOCK_PAUSE_S)
    raise OSError(f"{path} belongs to another worker; give each worker a name of its own")


def _delete_stale(folder: Path) -> None:
    """Delete the files of killed workers."""
    for path in folder.glob("*"):
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
