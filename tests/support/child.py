"""Child processes of the tests: started with a log, frozen, killed, and never left behind.

On Linux the kernel itself ends a child when the thread that started it ends (PR_SET_PDEATHSIG), so
nothing outlives a pytest that is killed with SIGKILL; start long-lived servers from the main thread
for that reason. Elsewhere the fixtures alone clean up.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork

lasting_pids: set[int] = set()  # children that may outlive one test: servers of the session
nursery_pids: set[int] = set()  # of these the processes from which the tests' children are forked


class ChildFailed(AssertionError):
    """A child did not start, or not end, in time; the message ends with its log."""


BUSY = 3
"""Every bound of a wait is this many times what a quiet machine needs.

A bound only ends a test that fails anyway; a test must pass beside other work."""


def wait_until(
    predicate: Callable[[], object], timeout_s: float = 10, what: str = "the condition"
) -> None:
    """Wait until `predicate()` is true; raise TimeoutError after BUSY times `timeout_s`.

    It pauses for at least as long as it took to ask, so that asking takes no core of its own.
    """
    asked_at = time.monotonic()
    end = asked_at + timeout_s * BUSY
    pause_s = 0.001
    while not predicate():
        now = time.monotonic()
        if now > end:
            raise TimeoutError(f"waited {timeout_s * BUSY:g} s in vain for {what}")
        time.sleep(max(pause_s, min(now - asked_at, 0.5)))
        asked_at = time.monotonic()
        pause_s = min(pause_s * 1.5, 0.05)


def die_with_parent(number: signal.Signals = signal.SIGKILL) -> None:
    """This process is sent `number` when the thread that started it ends; nothing but on Linux."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, int(number))


class Running(Protocol):
    """What is needed of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


class ChildProcess:
    """One command that can be started, killed, frozen, started again; it writes to `log_path`."""

    stop_signal = signal.SIGTERM
    parent_death_signal = signal.SIGKILL
    forks = False
    """Whether it may be forked from the session's nursery, see tests/support/nursery.py."""
    may_end = False
    """Whether it comes to an end by itself, perhaps before its start has been seen."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        lasting: bool = False,
    ) -> None:
        """Prepare, but start nothing; `env` is laid over the environment of the tests."""
        self.argv = [str(word) for word in argv]
        self.log_path = log_path
        self.env = dict(env or {})
        self.cwd = cwd
        self.user = user
        self.lasting = lasting
        self.process: Running | None = None

    @property
    def pid(self) -> int:
        """The process id; raises ChildFailed before the first start."""
        if self.process is None:
            raise ChildFailed(f"{self.argv[0]} has not been started")
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists and has not ended."""
        return self.process is not None and self.process.poll() is None

    def start(self, timeout_s: float = 30) -> Self:
        """The process runs and `ready()` has been true; raises ChildFailed with its log if not."""
        if self.running:
            raise ChildFailed(f"{self.argv[0]} runs already as {self.pid}")
        self.process = self._spawn()
        if self.lasting:
            lasting_pids.add(self.pid)
        try:
            ended_or_ready = lambda: not self.running or self.ready()  # noqa: E731
            wait_until(ended_or_ready, timeout_s, f"{self.argv} to be ready")
        except BaseException as fault:
            self.kill()
            if isinstance(fault, TimeoutError):
                raise ChildFailed(f"{fault}; its log:\n{self.log_end()}") from fault
            raise
        if not self.running and not self.may_end:
            raise ChildFailed(
                f"{self.argv} ended at once, code {self.exit_code()}; its log:\n{self.log_end()}"
            )
        return self

    def run(self, timeout_s: float = 60) -> None:
        """The command has come to its end with code 0; raises ChildFailed with its log if not."""
        self.process = self._spawn()
        try:
            code = self.process.wait(timeout_s * BUSY)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChildFailed(
                f"{self.argv} took over {timeout_s * BUSY:g} s; its log:\n{self.log_end()}"
            ) from None
        if code != 0:
            raise ChildFailed(f"{self.argv} ended with code {code}; its log:\n{self.log_end()}")

    def ready(self) -> bool:
        """Whether the process can be used; classes that know more override this."""
        return True

    def stop(self, timeout_s: float = 10) -> int | None:
        """The process has ended by `stop_signal`; raises ChildFailed if it had to be killed."""
        if self.process is None:
            return None
        if self.running:
            self.thaw()
            self.signal(self.stop_signal)
        try:
            return self.process.wait(timeout_s * BUSY)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ChildFailed(
                f"{self.argv} still ran {timeout_s * BUSY:g} s after {self.stop_signal.name}; "
                f"its log:\n{self.log_end()}"
            ) from None
        finally:
            lasting_pids.discard(self.process.pid)

    def kill(self) -> None:
        """The process is gone, by SIGKILL; harmless when it has ended already."""
        if self.process is not None:
            if self.running:
                self.process.kill()
            self.process.wait()
            lasting_pids.discard(self.process.pid)

    def restart(self, timeout_s: float = 30) -> Self:
        """A new process runs with the same arguments, so on the same files and the same address."""
        if self.running:
            self.stop()
        return self.start(timeout_s)

    def freeze(self) -> None:
        """The process stands still (SIGSTOP) but keeps its connections open: a hung server."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """The process goes on (SIGCONT); harmless when it was never frozen."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """`number` has been sent, if the process still runs."""
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, None while it runs or before its start."""
        return None if self.process is None else self.process.poll()

    def log(self) -> str:
        """All that the process has written, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_end(self, lines: int = 40) -> str:
        """The last `lines` lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def log_from(self, word: str, lines: int = 60) -> str:
        """The log from shortly before the first line with this word on."""
        found = self.log().splitlines()
        at = next((n for n, line in enumerate(found) if word in line), len(found))
        return "\n".join(found[max(0, at - 3) : at + lines])

    def _spawn(self) -> Running:
        with self.log_path.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if self.forks and self.user is None:
                from tests.support import nursery  # which needs this module

                streams = (nothing.fileno(), log.fileno(), log.fileno())
                cwd = str(self.cwd) if self.cwd else None
                if forked := nursery.fork(self.argv, self.env, cwd, streams):
                    return forked
            return subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                cwd=self.cwd,
                user=self.user,
                extra_groups=[] if self.user else None,
                preexec_fn=self._die_with_parent if _libc else None,
            )

    def _die_with_parent(self) -> None:
        die_with_parent(self.parent_death_signal)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.kill() if _exc[0] else self.stop()
