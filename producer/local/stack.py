"""The whole system on this machine, for as long as one command runs: `headgate up` and the demo.

It joins the embedded server if no Redis is configured. The simulator, the workers, the gateway
and Flower are processes under supervision: call `restart_dead` a few times a second. `stop` ends
all of them.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from headgate.producer.installation import Installation, open_installation
from headgate.producer.local.launch import program
from headgate.producer.local.process import Child, ChildGaveUp, stop_all
from headgate.producer.waits.find import living_workers
from headgate.shared import settings
from headgate.shared.catalog import access
from headgate.shared.errors import Unreachable, WrongUse
from headgate.shared.servers.embedded import EmbeddedFailed
from headgate.shared.settings import Settings, masked

FLOWER_PORT = 5555
"""Flower's own default."""

GATEWAY_PORT = 8080

START_S = 30.0
"""How long workers and simulator may take to start; on a busy machine it takes a few seconds."""

_STOP_MARGIN_S = 12.0
"""A worker ends at most 10 s after its drain time; this adds some room."""

_QUICK_STOP_S = 5.0
_SERVER_CHECK_S = 5.0


def worker_argv(
    name: str,
    level: str,
    *,
    queues: Sequence[str] = (),
    concurrency: int | None = None,
    quiet: bool = False,
) -> list[str]:
    """Return the command of one worker process with our defaults.

    `level`: the log level. `queues`: all if empty. `quiet`: without Celery's banner.
    """
    argv = [*program("headgate.workers"), "--loglevel", level, "--hostname", f"{name}@%h"]
    if quiet:
        argv.append("--quiet")
    if queues:
        argv += ["--queues", ",".join(queues)]
    return argv if concurrency is None else [*argv, "--concurrency", str(concurrency)]


@dataclass
class LocalStack:
    """The processes of one installation on this machine.

    `notify` is called with messages for the user, `on_line` with the name of a process and a line
    that it wrote. `env`: the whole environment of the processes (None: ours). `cwd`: their folder.
    `at_once`: whether to stop without waiting for jobs. `flower_port`, `gateway_port`: run Flower
    and the gateway there, too; the gateway serves this machine without keys.
    """

    settings: Settings
    notify: Callable[[str], None]
    on_line: Callable[[str, str], None]
    workers: int = 1
    simulator: Sequence[str] | None = None
    flower_port: int | None = None
    gateway_port: int | None = None
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    log_level: str = "WARNING"
    worker_name: str = "worker"
    installation: Installation | None = None
    simulator_url: str | None = None
    gateway_url: str | None = None
    flower_url: str | None = None
    flower_login: str | None = None
    children: list[Child] = field(default_factory=list)
    at_once: Callable[[], bool] = lambda: False
    _owns: bool = False
    _checked_at: float = 0.0

    def start(self) -> None:
        """Start the simulator, the workers and Flower.

        Raises Unreachable or ChildGaveUp, or SettingError for a key or proxy that cannot be used.
        """
        if self.flower_port is not None:
            require_free("--flower-port", self.flower_port)
        if self.gateway_port is not None:
            require_free("--port", self.gateway_port)
        if self.installation is None:
            self.installation, self._owns = open_installation(self.settings), True
        env = dict(settings.environment() if self.env is None else self.env)
        if self.simulator is not None:
            self.simulator_url = self._start_simulator(env, self.simulator)
            env["HEADGATE_SIMULATOR_URL"] = self.simulator_url
        else:
            access.check(self.settings, self.installation.catalog)
        for n in range(1, self.workers + 1):
            name = f"{self.worker_name}-{n}"
            argv = worker_argv(name, self.log_level, quiet=True)
            self._start(name, argv, env, self.settings.drain_s + _STOP_MARGIN_S)
        if self.gateway_port is not None:
            self._start_gateway(env, self.gateway_port)
        if self.flower_port is not None:
            self._start_flower(env, self.flower_port)

    def wait_for_workers(self) -> bool:
        """Wait until all workers answer, at most `START_S`; return whether they do."""
        at = self._opened()
        until = time.monotonic() + START_S
        while living_workers(at.redis, at.keys) < self.workers:
            if self.at_once() or time.monotonic() > until:
                return False
            self.restart_dead()
            time.sleep(0.1)
        return True

    def restart_dead(self) -> None:
        """Restart what has died; raise ChildGaveUp for a process that dies again and again."""
        for child in self.children:
            if note := child.restart_dead():
                self.notify(note)
        now = time.monotonic()
        membership = self._opened().servers.membership
        if membership is not None and now - self._checked_at > _SERVER_CHECK_S:
            self._checked_at = now
            try:
                membership.ensure()
            except EmbeddedFailed as error:
                self.notify(f"the embedded server: {error}")

    def stop(self) -> None:
        """Stop all processes that were started here: the workers first, the simulator last."""
        order = [*reversed(self.children)]
        workers = [child for child in order if child.name.startswith(self.worker_name)]
        for child in workers:
            child.request_stop()  # so that all finish their jobs at the same time
        others = [child for child in order if child not in workers]
        killed = stop_all([*workers, *others], self.at_once)
        for name in killed:
            self.notify(f"{name} did not end in time and was killed")
        self.children.clear()
        if self._owns and self.installation is not None:
            self.installation.close()
            self.installation = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _opened(self) -> Installation:
        if self.installation is None:
            raise RuntimeError("not started")
        return self.installation

    def _start(self, name: str, argv: list[str], env: Mapping[str, str], grace_s: float) -> Child:
        child = Child(
            name,
            argv,
            env=env,
            cwd=self.cwd,
            grace_s=grace_s,
            on_line=lambda line: self.on_line(name, line),
        )
        self.children.append(child)
        child.start()
        return child

    def _start_simulator(self, env: Mapping[str, str], flags: Sequence[str]) -> str:
        ready = self.settings.home_path / f"simulator-{os.getpid()}.url"
        ready.unlink(missing_ok=True)
        argv = [*program("headgate.workers.simulator"), *flags, "--ready-file", str(ready)]
        child = self._start("simulator", argv, env, _QUICK_STOP_S)
        until = time.monotonic() + START_S
        while not ready.exists():
            if time.monotonic() > until:
                raise Unreachable("the simulator", f"not ready after {START_S:g} s", "try again")
            if not child.running:
                raise ChildGaveUp("simulator", child.exit_code or 0, child.read_last_lines())
            time.sleep(0.02)
        url = ready.read_text().strip()
        ready.unlink(missing_ok=True)
        # It has chosen a free port by itself: one that was free before may be taken by then. A
        # simulator that is restarted must keep its address.
        child.argv += ["--port", url.rpartition(":")[2]]
        return url

    def _start_gateway(self, env: Mapping[str, str], port: int) -> None:
        self.gateway_url = f"http://127.0.0.1:{port}"
        argv = [*program("headgate.producer.gateway"), "--port", str(port)]
        env = {**env, "HEADGATE_GATEWAY_OPEN": "1"}
        self._start("gateway", argv, env, self.settings.drain_s + _STOP_MARGIN_S)

    def wait_for_gateway(self) -> bool:
        """Wait until the gateway listens, at most `START_S`; return whether it does."""
        until = time.monotonic() + START_S
        while not _listens(self.gateway_port or GATEWAY_PORT):
            if self.at_once() or time.monotonic() > until:
                return False
            self.restart_dead()
            time.sleep(0.05)
        return True

    def _start_flower(self, env: Mapping[str, str], port: int) -> None:
        self.flower_url = f"http://127.0.0.1:{port}"
        login, self.flower_login = flower_login(self.settings)
        # In the environment: every user of the machine can read the arguments of a process.
        env = {**env, "FLOWER_BASIC_AUTH": login}
        argv = [*program("headgate.workers.flower"), "--port", str(port)]
        self._start("flower", argv, env, _QUICK_STOP_S)

    def addresses(self) -> list[tuple[str, str]]:
        """Return a label and an address for all that runs, as rows of a short table."""
        servers = self._opened().servers
        rows = [("home", str(self.settings.home_path))]
        kind = "Valkey (embedded)" if servers.is_embedded else "Redis"
        rows += [(kind, masked(servers.redis_url)), ("database", masked(servers.database_url))]
        rows += [
            (child.name, f"pid {child.pid}")
            for child in self.children
            if child.name.startswith(self.worker_name)
        ]
        if self.simulator_url:
            rows.append(("simulated provider", self.simulator_url))
        if self.gateway_url:
            rows.append(("gateway", f"{self.gateway_url}/v1 (this machine only, without keys)"))
        if self.flower_url:
            rows.append(("Flower", f"{self.flower_url} (login {self.flower_login})"))
        return rows


def flower_login(chosen: Settings) -> tuple[str, str]:
    """Return the logins of Flower, and what to print of them: a new login, or where it is from."""
    own = chosen.flower_basic_auth
    if own is not None:
        return own.get_secret_value(), "of FLOWER_BASIC_AUTH"
    made = f"headgate:{secrets.token_urlsafe(12)}"
    return made, made


def gateway_port() -> int:
    """Return the usual port of the gateway if it is free, else another one that is."""
    with suppress(WrongUse):
        require_free("--port", GATEWAY_PORT)
        return GATEWAY_PORT
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def require_free(option: str, port: int) -> None:
    """Raise WrongUse if another program listens on this loopback port."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            remedy = f"cannot be used ({error.strerror}); name another port with {option}"
            raise WrongUse(option, port, remedy) from error
