"""One Valkey process of our own in a folder: its address, its start, its end.

The server holds server.lock, a flock in its folder, through a descriptor it inherits at birth.
Whether a server lives is therefore never read from a pid, and two never write the same folder: not
even when the keeper that started the first was killed. Standard library only, as shared/servers/keeper.py.
"""

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

ANSWER_S = 60.0  # a server that reads its data answers -LOADING meanwhile; silence is a fault
ADOPT_S = 5.0  # how long a server that a killed keeper left may take to answer, before its end
STOP_S = 10.0  # a clean end writes and syncs the append-only file; after this the server is killed

CONFIG = """\
{listen}
dir {folder}
pidfile {pidfile}
logfile {log}
set-proc-title no
protected-mode yes
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
maxmemory-policy noeviction
"""


class StartFailed(Exception):
    """The server could not be started: what happened, where, and what to do."""

    def __init__(self, what: str, path: Path, remedy: str) -> None:
        super().__init__(f"{what} ({path}): {remedy}")
        self.what, self.path, self.remedy = what, path, remedy


def try_lock(path: Path, how: int) -> int | None:
    """A descriptor that holds the flock, not inherited by programs; None if another holds it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return fd


def read_json(path: Path) -> dict[str, object] | None:
    """The object in the file; None if there is none, or a crash has cut it."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, text: str) -> None:
    """The file holds the text, whole or not at all, readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(os.fsencode(text))
    new.replace(path)


def ping(url: str, timeout_s: float = 1.0) -> str:
    """What the server says to PING: `+PONG`, or `-LOADING ..`, `-BUSY ..`, `-MISCONF ..`; or ""."""
    where = urlsplit(url)
    line = socket.socket(socket.AF_INET if where.hostname else socket.AF_UNIX)
    commands, got = b"PING\r\n", b""
    if where.password:
        commands = f"AUTH {where.password}\r\n".encode() + commands
    try:
        with line:
            line.settimeout(timeout_s)
            if where.hostname:
                line.connect((where.hostname, where.port or 0))
            else:
                line.connect(os.fsdecode(unquote_to_bytes(where.path)))
            line.sendall(commands)
            while got.count(b"\r\n") < commands.count(b"\r\n") and (more := line.recv(512)):
                got += more
    except OSError:
        return ""
    first, _, rest = got.decode(errors="replace").partition("\r\n")
    answer = (rest if first == "+OK" else "" if where.password else first).strip()
    return answer if answer.startswith(("+PONG", "-LOADING", "-BUSY", "-MISCONF")) else ""


def tail(path: Path, start: int = 0, lines: int = 8) -> str:
    """The last lines of a log, from the byte `start` on; empty if it cannot be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - 8192))
            return "\n".join(log.read().decode(errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return ""


def disk_is_full(folder: Path) -> bool:
    """Whether the folder's disk has less than a megabyte left."""
    with suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize < 1_000_000
    return False


def remedy(folder: Path) -> str:
    """What is likely to help when the server does not start."""
    if disk_is_full(folder):
        return "the disk is full: free some space, or set HEADGATE_HOME to a folder elsewhere"
    return f"read the log; to start with empty data, move {folder} away"


class Server:
    """The server of one folder. `pause` waits some seconds, and says whether to give up."""

    def __init__(self, folder: Path, binary: str, pause: Callable[[float], bool]) -> None:
        self._folder, self._binary, self._pause = folder, binary, pause
        self._config, self._pidfile = folder / "valkey.conf", folder / "valkey.pid"
        self._log, self._socket = folder / "valkey.log", folder / "sock"
        self._child: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.pid = 0

    def lives(self) -> bool:
        """Whether a server holds this folder, ours or one left behind."""
        if self._child is not None:
            self._child.poll()  # reaps
        lock = try_lock(self._folder / "server.lock", fcntl.LOCK_SH)
        if lock is not None:
            os.close(lock)
        return lock is None

    def adopt(self) -> bool:
        """A server that a killed keeper left is ours now; False if there is none that answers."""
        url = str((read_json(self._folder / "address.json") or {}).get("url", ""))
        until = time.monotonic() + ADOPT_S
        while (alive := self.lives()) and not (answer := ping(url)) and time.monotonic() < until:
            self._pause(0.02)
        if not alive:
            return False
        with suppress(OSError, ValueError):
            self.pid = int(self._pidfile.read_text())
        if not self._is_our_server():
            raise StartFailed(
                "a server of an earlier run holds this folder and cannot be identified",
                self._pidfile,
                "end the valkey-server process of this folder by hand, and try again",
            )
        if not answer:
            self.stop()
            return False
        self.url = url
        return True

    def start(self) -> None:
        """A server of our own answers, at the address it had before if it had one."""
        self.url = self.url or self._choose_address()
        words = ""
        for _ in range(5):
            log_start = self._log.stat().st_size if self._log.exists() else 0
            self._spawn()
            until = time.monotonic() + ANSWER_S
            while self.lives() and not ping(self.url) and time.monotonic() < until:
                if self._pause(0.01):
                    return
            if time.monotonic() >= until:
                self.stop()
            if self.lives():
                return
            words = tail(self._log, log_start)
            if "in use" not in words:
                break
            self.url = self._choose_address(new_port=True)
        raise StartFailed(
            f"the embedded Valkey did not start; its log says:\n{words or '(nothing)'}",
            self._log,
            remedy(self._folder),
        )

    def stop(self, *, home_is_lost: bool = False) -> None:
        """The server is down: cleanly, or by force when it did not follow in time.

        With its home deleted it has nothing to save, and must clean nothing up: a server that ends
        cleanly removes what is at its paths, which may be a new server's by now.
        """
        for sign in (signal.SIGKILL,) if home_is_lost else (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + STOP_S
            if not self._signal(sign):
                break
            self._signal(signal.SIGCONT)  # a stopped process ends only once it goes on
            while self._signal(0) and time.monotonic() < until:
                time.sleep(0.01)
        if not home_is_lost and not self.lives():
            self._pidfile.unlink(missing_ok=True)
            self._socket.unlink(missing_ok=True)

    def _signal(self, sign: int) -> bool:
        """Whether our server was there to be signalled."""
        if self._child is not None:
            self._child.send_signal(sign)
            return self._child.returncode is None
        if not self._is_our_server():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, sign)
        return True

    def _is_our_server(self) -> bool:
        """Whether the pid belongs to a server that was started with this folder's configuration."""
        if self.pid <= 1:
            return False
        if Path("/proc/self").exists():
            try:
                words = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                return False
            return words[0].endswith(b"-server") and words[1:2] == [os.fsencode(self._config)]
        ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(self.pid)]  # macOS
        line = subprocess.run(ps, capture_output=True, check=False).stdout.strip()  # noqa: S603
        return line.endswith(b"-server " + os.fsencode(self._config))

    def _spawn(self) -> None:
        """The server process exists and holds the server lock."""
        lock = try_lock(self._folder / "server.lock", fcntl.LOCK_EX)
        if lock is None:
            raise StartFailed("the old server has not ended yet", self._log, "try again")
        try:
            self._pidfile.unlink(missing_ok=True)
            self._socket.unlink(missing_ok=True)
            write(self._config, self._settings())
            with self._log.open("ab") as log:
                self._child = subprocess.Popen(  # noqa: S603  a program of ours, no user's words
                    [self._binary, str(self._config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock],
                    start_new_session=True,
                    env={},  # the starter's may hold provider keys; the server needs none of it
                )
        finally:
            os.close(lock)
        self.pid = self._child.pid

    def _settings(self) -> str:
        where = urlsplit(self.url)
        if where.hostname is None:
            listen = f"port 0\nunixsocket {_quoted(self._socket)}\nunixsocketperm 600"
        else:
            listen = f"bind {where.hostname}\nport {where.port}\nrequirepass {where.password}"
        folder, pidfile, log = map(_quoted, (self._folder, self._pidfile, self._log))
        return CONFIG.format(listen=listen, folder=folder, pidfile=pidfile, log=log)

    def _choose_address(self, *, new_port: bool = False) -> str:
        """The socket; where none can be made, the loopback port of before, or a new one."""
        address = self._folder / "address.json"
        try:
            self._socket.unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX) as trial:
                trial.bind(str(self._socket))  # OSError: path too long, or no sockets on this disk
            url = f"redis+socket://{quote(os.fsencode(self._socket))}"
        except OSError:
            url = str((read_json(address) or {}).get("url", ""))
            if new_port or not url.startswith("redis://"):
                url = f"redis://:{os.urandom(24).hex()}@127.0.0.1:{_free_port()}/0"
        write(address, json.dumps({"url": url}))
        return url


def _quoted(path: Path) -> str:
    """The path as the configuration file spells it, blanks and quotes included."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _free_port() -> int:
    """A loopback port that was free just now.

    Below the range that outgoing connections get (from 32768 on Linux, 49152 on macOS): a client
    that keeps trying while the server is down could be given the server's own port, and block it.
    """
    for _ in range(100):
        port = 20000 + int.from_bytes(os.urandom(2), "big") % 12000
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise OSError("no free loopback port found")
