"""The processes that a command runs: it guards them, restarts them when they die, and ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from headgate.producer.local import guard
from headgate.shared.errors import HeadgateError

STEADY_S = 10.0
"""A process that lived this long did not die at once; its next death counts as the first."""

QUICK_STOP_S = 5.0
"""How long workers may take to put back their jobs when the user wants to stop at once."""

QUICK_DEATHS = 5
_BACKOFF_S = 0.5
_BACKOFF_MAX_S = 8.0


class ChildGaveUp(HeadgateError):
    """A process died at once, again and again; `last_lines`: the last ones that it wrote."""

    def __init__(self, name: str, code: int, last_lines: Sequence[str]) -> None:
        output = "\n".join(last_lines) or "(no output)"
        super().__init__(
            f"{name} ended at once {QUICK_DEATHS} times, with exit code {code}:\n{output}"
        )
        self.name = name
        self.code = code


class Child:
    """One process under supervision; `on_line` is called with each line that it writes.

    `grace_s`: how long it may take to end after SIGTERM.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        on_line: Callable[[str], None],
        grace_s: float,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.argv, self.env, self.cwd = name, list(argv), dict(env), cwd
        self.grace_s = grace_s
        self.last_lines: deque[str] = deque(maxlen=12)
        self._on_line = on_line
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._quick_deaths = 0
        self._stop_requested = False

    @property
    def running(self) -> bool:
        """Whether the process has been started and not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The pid of the guard, which leads the process's session."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """How the process ended, or None while it runs."""
        return self._process.poll() if self._process else None

    def read_last_lines(self) -> list[str]:
        """Return the last lines of a process that has ended."""
        self._join()
        return list(self.last_lines)

    def start(self) -> None:
        """Start the process."""
        # -I -S: without site-packages the guard starts fast, stays small and is always the same.
        watched = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(self.grace_s)]
        self._process = subprocess.Popen(  # noqa: S603  our own programs
            [*watched, *self.argv],
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._started_at = time.monotonic()
        self._start_at = None
        self._stop_requested = False
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name=f"{self.name} lines", daemon=True
        )
        self._reader.start()

    def restart_dead(self) -> str | None:
        """Restart the process, after a pause, if it has died; return a note about that.

        Raise ChildGaveUp after `QUICK_DEATHS` deaths in a row.
        """
        if self.running or self._process is None:
            return None
        now = time.monotonic()
        if self._start_at is None:
            code = self._process.returncode
            steady = now - self._started_at > STEADY_S
            self._quick_deaths = 1 if steady else self._quick_deaths + 1
            if self._quick_deaths >= QUICK_DEATHS:
                raise ChildGaveUp(self.name, code, self.read_last_lines())
            pause_s = min(_BACKOFF_S * 2 ** (self._quick_deaths - 1), _BACKOFF_MAX_S)
            self._start_at = now + pause_s
            return f"{self.name} ended (exit code {code}); starting it again in {pause_s:g} s"
        if now >= self._start_at:
            self.start()
        return None

    def request_stop(self) -> None:
        """Send SIGTERM once: the process finishes its work and ends."""
        if self._process is not None and self.running and not self._stop_requested:
            self._stop_requested = True
            self._process.send_signal(signal.SIGTERM)

    def request_stop_again(self) -> None:
        """Send SIGTERM again: a worker puts its running jobs back at once."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)

    def request_reload(self) -> None:
        """Send SIGHUP: a gateway reads its certificate anew."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill the process and all others in its session."""
        if self._process is not None:
            if self.running:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._join()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None:
            return
        with process.stdout as lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                self.last_lines.append(line)
                self._on_line(line)

    def _join(self) -> None:
        # A child that the process left behind may hold the pipe open; do not wait for its lines.
        if self._reader is not None:
            self._reader.join(1.0)


def stop_all(children: Sequence[Child], at_once: Callable[[], bool] = lambda: False) -> list[str]:
    """Stop all processes, in order, each after the one before has ended.

    Each gets SIGTERM, then `grace_s`, then SIGKILL; `at_once` cuts the wait short.
    Return the names of those that were killed.
    """
    killed = []
    try:
        for child in children:
            child.request_stop()
            until = time.monotonic() + child.grace_s
            while child.running and time.monotonic() < until and not at_once():
                time.sleep(0.02)
            if child.running and at_once():
                _stop_quickly(children)
            if child.running:
                killed.append(child.name)
            child.kill()
    except BaseException:  # a second Ctrl-C
        try:
            _stop_quickly(children)
        finally:
            for child in children:
                child.kill()
        raise
    return killed


def _stop_quickly(children: Sequence[Child]) -> None:
    """Send SIGTERM to all until they have ended, for at most `QUICK_STOP_S`."""
    until = time.monotonic() + QUICK_STOP_S
    while time.monotonic() < until and any(child.running for child in children):
        for child in children:
            child.request_stop_again()  # repeatedly: two signals at one moment count as one
        time.sleep(0.1)
