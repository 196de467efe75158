"""Keeps one Valkey running for one home, and ends it when no command needs it any more.

Three lock files in the folder `<home>/valkey`, all flocks, so that the kernel drops each one
however its holder ends:

* keeper.lock, exclusive: this process, for its whole life. The command that starts the keeper takes
  the lock itself and hands the locked descriptor over; between "no keeper" and "this keeper" there
  is no moment in which a second one could come up.
* members.lock, shared: each command that uses the server.
* server.lock, exclusive: the server process itself; see shared/servers/valkey.py.

How a command that joins while the keeper decides to end still gets a server: it takes the members
lock first, and looks for a keeper second. The keeper ends only while it holds the members lock
exclusively, and keeps it until the server is down and the keeper lock dropped, in this order. So a
command either is in before, and the keeper cannot get the lock and stays; or it waits for the
lock, finds no keeper after it, and starts one. (SIGTERM ends the keeper with members present; a
command that joins then waits until the keeper lock is free, and starts the next.)

It runs as a script with nothing but the standard library, to be small for as long as it lives.
"""

import fcntl
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).absolute().parents[3]))

from headgate.shared.servers.valkey import Server, StartFailed, remedy, try_lock, write

POLL_S = 0.5
STEADY_S = 10.0  # a server that lived this long did not die "at once"
BACKOFF_MAX_S = 5.0


class Processes(NamedTuple):
    """Who serves a home, and where."""

    url: str
    keeper_pid: int
    server_pid: int


def claim(folder: Path) -> int | None:
    """The keeper lock, and no word left of an earlier keeper; None while a keeper lives."""
    fd = try_lock(folder / "keeper.lock", fcntl.LOCK_EX)
    if fd is not None:
        (folder / "running.json").unlink(missing_ok=True)
    return fd


class Keeper:
    """The keeper of one folder; built by the holder of the keeper lock."""

    def __init__(self, folder: Path, lock: int, binary: str, grace_s: float) -> None:
        self._folder, self._lock, self._grace_s = folder, lock, grace_s
        members = folder / "members.lock"
        self._members = os.open(members, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._server = Server(folder, binary, self._pause)
        self._started = self._not_before = 0.0
        self._quick_deaths = 0
        self._ending = False
        self._wakes, self._waker = socket.socketpair()

    def run(self) -> int:
        """The server ran while there were members, and is down; 1 if it could not be started."""
        self._heed_signals()
        try:
            if self._server.adopt():
                self._serve("adopted")
            else:
                self._start()
            self._keep()
        except (StartFailed, OSError) as error:
            self._tell(error)
            return 1
        finally:
            self._end()
        return 0

    def _heed_signals(self) -> None:
        def end(*_: object) -> None:
            self._ending = True

        self._wakes.setblocking(False)
        self._waker.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only wakes: the server may have died
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # what the starter had blocked came along

    def _pause(self, seconds: float) -> bool:
        """Time has passed or a signal came; whether it is time to end."""
        if not self._ending and select.select([self._wakes], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                self._wakes.recv(512)
        return self._ending

    def _keep(self) -> None:
        """It is time to end: the members lock is ours, or a signal or the lost home says so."""
        alone_since: float | None = None
        while not self._pause(POLL_S) and not self._home_is_lost():
            if not self._server.lives():
                self._restart()
            try:
                fcntl.flock(self._members, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone_since = None
                continue
            now = time.monotonic()
            alone_since = now if alone_since is None else alone_since
            if now - alone_since >= self._grace_s:
                return
            fcntl.flock(self._members, fcntl.LOCK_UN)

    def _end(self) -> None:
        """The server is down, its traces are gone, and the next keeper may come."""
        lost = self._home_is_lost()
        if not lost:
            (self._folder / "running.json").unlink(missing_ok=True)
        self._server.stop(home_is_lost=lost)
        _note("ended")
        os.close(self._lock)  # before the members lock: who gets that one must find no keeper
        os.close(self._members)

    def _home_is_lost(self) -> bool:
        """Whether the home was deleted or replaced; then nothing at its path is this keeper's."""
        try:
            return not os.path.samestat(os.fstat(self._lock), (self._folder / "keeper.lock").stat())
        except OSError:
            return True

    def _start(self) -> None:
        self._started = time.monotonic()
        self._server.start()
        self._serve("started")

    def _restart(self) -> None:
        """The server runs again, or it keeps dying and its next turn is yet to come."""
        now = time.monotonic()
        if now < self._not_before:
            return
        _note(f"server {self._server.pid} is gone")
        self._quick_deaths = self._quick_deaths + 1 if now - self._started < STEADY_S else 0
        self._not_before = now + min(BACKOFF_MAX_S, 0.1 * 2**self._quick_deaths)
        try:
            (self._folder / "running.json").unlink(missing_ok=True)
            self._start()
        except (StartFailed, OSError) as error:
            self._tell(error)

    def _serve(self, how: str) -> None:
        """Whoever joins finds the server."""
        _note(f"server {self._server.pid} {how}")
        found = Processes(self._server.url, os.getpid(), self._server.pid)
        write(self._folder / "running.json", json.dumps(found._asdict()))
        (self._folder / "failed.json").unlink(missing_ok=True)

    def _tell(self, error: StartFailed | OSError) -> None:
        """Whoever joins learns what went wrong, if the disk still takes it."""
        _note(str(error))
        if isinstance(error, OSError):
            what = f"the embedded Valkey did not start: {error}"
            error = StartFailed(what, self._folder, remedy(self._folder))
        at = f"{os.getpid()} {time.time_ns()}"  # tells this failure from the last one
        told = {"what": error.what, "path": str(error.path), "remedy": error.remedy, "at": at}
        with suppress(OSError):
            write(self._folder / "failed.json", json.dumps(told))


def _note(text: str) -> None:
    """The keeper's log has a line more, if the disk still takes it."""
    with suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} keeper {os.getpid()}: {text}\n")
        sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """`keeper.py HOME BINARY [GRACE_S [LOCK]]`; with a lock handed over it leaves its starter."""
    folder, binary = Path(arguments[0]).resolve() / "valkey", arguments[1]
    grace_s = float(arguments[2]) if len(arguments) > 2 else 5.0
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True)
    lock: int | None
    if len(arguments) > 3:
        lock = int(arguments[3])
        os.set_inheritable(lock, False)
        if os.fork():  # the starter waits for this parent only, and has no zombie to reap later
            os._exit(0)
    else:
        lock = claim(folder)
    if lock is None:
        _note("a keeper of this home runs already")
        return 1
    os.chdir("/")
    return Keeper(folder, lock, binary, grace_s).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
