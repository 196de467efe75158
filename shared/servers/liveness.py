"""Signs of life: a file that a worker's event loop marks every second, and how others read it.

`<home>/alive/<host name>/<node name>` is locked by its worker for as long as that lives, and
holds the monotonic clock at its last beat: clock jumps and what killed workers left mean nothing.
No server is asked: an outage must not make a supervisor restart every worker.
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
"""An event loop that is silent for this long hangs; a busy one is late by parts of a second."""

LOCK_TRIES = 20
LOCK_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class WorkerSign:
    """A living worker process, and how long ago its event loop last ran."""

    node: str
    age_s: float

    @property
    def is_alive(self) -> bool:
        """Whether its event loop runs."""
        return self.age_s < STALE_S


class LivenessFile:
    """This worker's file. Made by one worker of this name at a time; raises OSError otherwise."""

    def __init__(self, home: Path, node: str) -> None:
        folder = _folder(home)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(folder)
        self._path = folder / quote(node, safe="@")
        self._file = _locked(self._path)
        self.beat()

    def beat(self) -> None:
        """The event loop has run just now."""
        os.pwrite(self._file, f"{time.monotonic():020.3f}".encode(), 0)

    def close(self) -> None:
        """This worker is known no more."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def signs(home: Path) -> list[WorkerSign]:
    """The living workers of this machine in this home."""
    found = []
    for path in sorted(_folder(home).glob("*")):
        try:
            with path.open("rb") as file:
                if not _is_locked(file.fileno()):
                    continue
                beat_at = float(file.read(20) or 0)
        except (OSError, ValueError):  # it has just gone, or is being made
            continue
        found.append(WorkerSign(unquote(path.name), max(0.0, time.monotonic() - beat_at)))
    return found


def _folder(home: Path) -> Path:
    # By the machine's name: containers that share a volume must not answer for each other.
    return home / "alive" / quote(socket.gethostname(), safe="")


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _locked(path: Path) -> int:
    """A locked file at this path; tried again, since a reader holds the lock for a moment."""
    for _ in range(LOCK_TRIES):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), path.stat()):  # else it was cleared meanwhile
                return file
        os.close(file)
        time.sleep(LOCK_PAUSE_S)
    raise OSError(f"{path} is another worker's: give each worker a name of its own")


def _clear(folder: Path) -> None:
    """What killed workers left is gone."""
    for path in folder.glob("*"):
        with suppress(OSError):
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
