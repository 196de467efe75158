"""Keeps one Valkey running for one home, and ends it when no command needs it any more.

There are three lock files in the folder `<home>/valkey`. All are flocks, so the kernel releases
each one however its holder ends:

* keeper.lock, exclusive: held by this process for its whole life. The command that starts the
  keeper takes the lock and hands over the locked descriptor, so a second keeper cannot start in
  between.
* members.lock, shared: held by each command that uses the server.
* server.lock, exclusive: held by the server process; see shared/servers/valkey.py.

A command that joins while the keeper decides to end still gets a server. The command takes the
members lock first and looks for a keeper second. The keeper ends only while it holds the members
lock exclusively; it keeps that lock until the server is down and the keeper lock is released, in
this order. So either the command comes first, and the keeper cannot get the lock and stays. Or the
command waits for the lock, then finds no keeper, and starts one. SIGTERM ends the keeper although
it has members; a command that joins then waits for the keeper lock and starts the next keeper.

The keeper runs as a script with nothing but the standard library, to use little memory.
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
STEADY_S = 10.0  # a server that ran this long did not die "at once"
BACKOFF_MAX_S = 5.0


class Processes(NamedTuple):
    """The processes of an embedded server, and its URL."""

    url: str
    keeper_pid: int
    server_pid: int


def take_lock(folder: Path) -> int | None:
    """Take the keeper lock and delete an earlier keeper's state; return None if one runs."""
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
        self._wakeup_read, self._wakeup_write = socket.socketpair()

    def run(self) -> int:
        """Run the server while it has members; return 0, or 1 if it could not be started."""
        self._handle_signals()
        try:
            if self._server.adopt():
                self._announce("adopted")
            else:
                self._start()
            self._supervise()
        except (StartFailed, OSError) as error:
            self._report_failure(error)
            return 1
        finally:
            self._end()
        return 0

    def _handle_signals(self) -> None:
        def end(*_: object) -> None:
            self._ending = True

        self._wakeup_read.setblocking(False)
        self._wakeup_write.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes _pause: the server may have died
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # the starter's mask is inherited

    def _pause(self, seconds: float) -> bool:
        """Wait for `seconds` or a signal; return whether to end."""
        if not self._ending and select.select([self._wakeup_read], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                self._wakeup_read.recv(512)
        return self._ending

    def _supervise(self) -> None:
        """Restart the server when it dies, until there are no members, a signal, or no home."""
        alone_since: float | None = None
        while not self._pause(POLL_S) and not self._home_is_lost():
            if not self._server.is_running():
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
        """Stop the server, delete its files, and let the next keeper start."""
        lost = self._home_is_lost()
        if not lost:
            (self._folder / "running.json").unlink(missing_ok=True)
        self._server.stop(home_is_lost=lost)
        _log("ended")
        os.close(self._lock)  # before the members lock: its next holder must find no keeper
        os.close(self._members)

    def _home_is_lost(self) -> bool:
        """Return whether the home was deleted or replaced: its files are not this keeper's."""
        try:
            return not os.path.samestat(os.fstat(self._lock), (self._folder / "keeper.lock").stat())
        except OSError:
            return True

    def _start(self) -> None:
        self._started = time.monotonic()
        self._server.start()
        self._announce("started")

    def _restart(self) -> None:
        """Start the server again, unless it keeps dying and the pause is not over."""
        now = time.monotonic()
        if now < self._not_before:
            return
        _log(f"server {self._server.pid} is gone")
        self._quick_deaths = self._quick_deaths + 1 if now - self._started < STEADY_S else 0
        self._not_before = now + min(BACKOFF_MAX_S, 0.1 * 2**self._quick_deaths)
        try:
            (self._folder / "running.json").unlink(missing_ok=True)
            self._start()
        except (StartFailed, OSError) as error:
            self._report_failure(error)

    def _announce(self, how: str) -> None:
        """Write the server's address for commands that join."""
        _log(f"server {self._server.pid} {how}")
        found = Processes(self._server.url, os.getpid(), self._server.pid)
        write(self._folder / "running.json", json.dumps(found._asdict()))
        (self._folder / "failed.json").unlink(missing_ok=True)

    def _report_failure(self, error: StartFailed | OSError) -> None:
        """Write the failure for commands that join, if the disk has room."""
        _log(str(error))
        if isinstance(error, OSError):
            what = f"the embedded Valkey did not start: {error}"
            error = StartFailed(what, self._folder, remedy(self._folder))
        at = f"{os.getpid()} {time.time_ns()}"  # makes this failure differ from the last one
        failure = {"what": error.what, "path": str(error.path), "remedy": error.remedy, "at": at}
        with suppress(OSError):
            write(self._folder / "failed.json", json.dumps(failure))


def _log(text: str) -> None:
    """Write a line to the keeper's log, if the disk has room."""
    with suppress(OSError):
        sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} keeper {os.getpid()}: {text}\n")
        sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Run `keeper.py HOME BINARY [GRACE_S [LOCK]]`; with a LOCK descriptor, fork away first."""
    folder, binary = Path(arguments[0]).resolve() / "valkey", arguments[1]
    grace_s = float(arguments[2]) if len(arguments) > 2 else 5.0
    os.umask(0o077)
    folder.mkdir(parents=True, exist_ok=True)
    lock: int | None
    if len(arguments) > 3:
        lock = int(arguments[3])
        os.set_inheritable(lock, False)
        if os.fork():  # the starter waits only for this process, and has no zombie to reap later
            os._exit(0)
    else:
        lock = take_lock(folder)
    if lock is None:
        _log("a keeper runs for this home already")
        return 1
    os.chdir("/")
    return Keeper(folder, lock, binary, grace_s).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
