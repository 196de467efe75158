"""Runs one Valkey process in a folder: its address, its start, its end.

The server holds server.lock, a flock in its folder, through a descriptor that it inherits. So the
lock says whether a server runs, not a pid. Two servers never write the same folder, even if the
keeper of the first was killed. Standard library only, like shared/servers/keeper.py.
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

ANSWER_S = 60.0  # a server that loads its data answers -LOADING; no answer at all is a fault
ADOPT_S = 5.0  # the time for a killed keeper's server to answer; after that it is stopped
STOP_S = 10.0  # the time to write and sync the append-only file; after that it is killed

CONFIG = """\
{access}
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
        super().__init__(what, path, remedy)  # pickle builds it again from these
        self.what, self.path, self.remedy = what, path, remedy

    def __str__(self) -> str:
        return f"{self.what} ({self.path}): {self.remedy}"


def try_lock(path: Path, how: int) -> int | None:
    """Lock the file; return its descriptor (close-on-exec), or None if another holds the lock."""
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
    """Return the object in the file; None if there is no file, or no valid JSON."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(path: Path, text: str) -> None:
    """Write the file in one step, whole or not at all, readable by its owner only."""
    new = path.with_name(f"{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(os.fsencode(text))
    new.replace(path)


def ping(url: str, timeout_s: float = 1.0) -> str:
    """Return the answer to PING: `+PONG`, `-LOADING ..`, `-BUSY ..`, `-MISCONF ..`; or ""."""
    address = urlsplit(url)
    connection = socket.socket(socket.AF_INET if address.hostname else socket.AF_UNIX)
    commands, got = b"PING\r\n", b""
    if address.password:
        commands = f"AUTH {address.password}\r\n".encode() + commands
    try:
        with connection:
            connection.settimeout(timeout_s)
            if address.hostname:
                connection.connect((address.hostname, address.port or 0))
            else:
                connection.connect(os.fsdecode(unquote_to_bytes(address.path)))
            connection.sendall(commands)
            while got.count(b"\r\n") < commands.count(b"\r\n") and (more := connection.recv(512)):
                got += more
    except OSError:
        return ""
    first, _, rest = got.decode(errors="replace").partition("\r\n")
    answer = (rest if first == "+OK" else "" if address.password else first).strip()
    return answer if answer.startswith(("+PONG", "-LOADING", "-BUSY", "-MISCONF")) else ""


def tail(path: Path, start: int = 0, lines: int = 8) -> str:
    """Return the last lines of a log from byte `start` on; empty if it cannot be read."""
    try:
        with path.open("rb") as log:
            log.seek(max(start, log.seek(0, os.SEEK_END) - 8192))
            return "\n".join(log.read().decode(errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return ""


def disk_is_full(folder: Path) -> bool:
    """Return whether the folder's disk has less than 1 MB left."""
    with suppress(OSError):
        disk = os.statvfs(folder)
        return disk.f_bavail * disk.f_frsize < 1_000_000
    return False


def remedy(folder: Path) -> str:
    """Return what is likely to help if the server does not start."""
    if disk_is_full(folder):
        return "the disk is full; free some space, or set HEADGATE_HOME to another disk"
    return f"read the log; to start with empty data, move {folder} away"


class Server:
    """The server of one folder. `pause` waits for some seconds and returns whether to give up."""

    def __init__(self, folder: Path, binary: str, pause: Callable[[float], bool]) -> None:
        self._folder, self._binary, self._pause = folder, binary, pause
        self._config, self._pidfile = folder / "valkey.conf", folder / "valkey.pid"
        self._log, self._socket = folder / "valkey.log", folder / "sock"
        self._child: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.pid = 0

    def is_running(self) -> bool:
        """Return whether a server runs in this folder: ours, or one of a killed keeper."""
        if self._child is not None:
            self._child.poll()  # collects the exit code of a dead server
        lock = try_lock(self._folder / "server.lock", fcntl.LOCK_SH)
        if lock is not None:
            os.close(lock)
        return lock is None

    def adopt(self) -> bool:
        """Take over the server of a killed keeper; return False if there is none that answers.

        Raise StartFailed if it cannot be identified.
        """
        url = str((read_json(self._folder / "address.json") or {}).get("url", ""))
        until = time.monotonic() + ADOPT_S
        while (
            (alive := self.is_running()) and not (answer := ping(url)) and time.monotonic() < until
        ):
            self._pause(0.02)
        if not alive:
            return False
        with suppress(OSError, ValueError):
            self.pid = int(self._pidfile.read_text())
        if not self._is_our_server():
            raise StartFailed(
                "a server of an earlier run uses this folder and cannot be identified",
                self._pidfile,
                "stop the valkey-server process of this folder by hand and try again",
            )
        if not answer:
            self.stop()
            return False
        self.url = url
        return True

    def start(self) -> None:
        """Start the server and wait until it answers; keep its address. Raise StartFailed."""
        self.url = self.url or self._choose_address()
        output = ""
        for _ in range(5):
            log_start = self._log.stat().st_size if self._log.exists() else 0
            self._spawn()
            until = time.monotonic() + ANSWER_S
            while self.is_running() and not ping(self.url) and time.monotonic() < until:
                if self._pause(0.01):
                    return
            if time.monotonic() >= until:
                self.stop()
            if self.is_running():
                return
            output = tail(self._log, log_start)
            if "in use" not in output:
                break
            self.url = self._choose_address(new_port=True)
        raise StartFailed(
            f"the embedded Valkey did not start; its log says:\n{output or '(nothing)'}",
            self._log,
            remedy(self._folder),
        )

    def stop(self, *, home_is_lost: bool = False) -> None:
        """Stop the server; kill it after `STOP_S`.

        `home_is_lost`: kill it at once. It has nothing to save, and a clean end would delete the
        files at its paths, which may be those of a new server by now.
        """
        for sign in (signal.SIGKILL,) if home_is_lost else (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + STOP_S
            if not self._signal(sign):
                break
            self._signal(signal.SIGCONT)  # a suspended process must continue in order to end
            while self._signal(0) and time.monotonic() < until:
                time.sleep(0.01)
        if not home_is_lost and not self.is_running():
            self._pidfile.unlink(missing_ok=True)
            self._socket.unlink(missing_ok=True)

    def _signal(self, sign: int) -> bool:
        """Send the signal to our server; return whether it runs."""
        if self._child is not None:
            self._child.send_signal(sign)
            return self._child.returncode is None
        if not self._is_our_server():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, sign)
        return True

    def _is_our_server(self) -> bool:
        """Return whether the pid is of a server that runs with this folder's configuration."""
        if self.pid <= 1:
            return False
        if Path("/proc/self").exists():
            try:
                words = Path(f"/proc/{self.pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                return False
            of_today = words[-4:-1] == [b"--dir", os.fsencode(self._folder), b"-"]
            of_the_release_before = words[1:2] == [os.fsencode(self._config)]
            return words[0].endswith(b"-server") and (of_today or of_the_release_before)
        ps = ["/bin/ps", "-ww", "-o", "command=", "-p", str(self.pid)]  # macOS
        line = subprocess.run(ps, capture_output=True, check=False).stdout.strip()  # noqa: S603
        return line.endswith(b" --dir " + os.fsencode(self._folder) + b" -")

    def _spawn(self) -> None:
        """Start the server process and hand it the server lock."""
        until = time.monotonic() + ADOPT_S
        # A process that ends loses its command line, by which it is known, before its locks.
        while (lock := try_lock(self._folder / "server.lock", fcntl.LOCK_EX)) is None:
            if time.monotonic() < until:
                time.sleep(0.01)
                continue
            raise StartFailed("the old server still runs", self._log, "try again")
        try:
            self._pidfile.unlink(missing_ok=True)
            self._socket.unlink(missing_ok=True)
            write(self._config, self._settings())
            # The configuration comes on standard input: the server takes the path of a file for a
            # pattern, and starts with defaults, open to the network, if nothing matches.
            with self._log.open("ab") as log, self._config.open("rb") as config:
                self._child = subprocess.Popen(  # noqa: S603  a program of ours, no user input
                    [self._binary, *self._listen(), "--dir", str(self._folder), "-"],
                    cwd=self._folder,
                    stdin=config,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock],
                    start_new_session=True,
                    env={},  # the environment may hold provider keys, and the server needs nothing
                )
        finally:
            os.close(lock)
        self.pid = self._child.pid

    def _listen(self) -> list[str]:
        """Return the options for the address; they hold whatever the configuration says."""
        where = urlsplit(self.url)
        if where.hostname is None:
            return ["--bind", "127.0.0.1", "--port", "0", "--unixsocket", str(self._socket)]
        return ["--bind", where.hostname, "--port", str(where.port)]

    def _settings(self) -> str:
        """Return the rest of the configuration. All users could read a password in arguments."""
        password = urlsplit(self.url).password
        access = f"requirepass {password}" if password else "unixsocketperm 600"
        pidfile, log = map(_quoted, (self._pidfile, self._log))
        return CONFIG.format(access=access, pidfile=pidfile, log=log)

    def _choose_address(self, *, new_port: bool = False) -> str:
        """Return the URL of a socket, or else of the last loopback port, or of a new one."""
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
    """Return the path quoted for the configuration file."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _free_port() -> int:
    """Return a loopback port that is free now.

    It is below the range for outgoing connections (from 32768 on Linux, 49152 on macOS). A client
    that retries while the server is down could otherwise get the server's port, and block it.
    """
    for _ in range(100):
        port = 20000 + int.from_bytes(os.urandom(2), "big") % 12000
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
            return port
    raise OSError("no free loopback port found")
