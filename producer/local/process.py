"""Processes that a command runs: guarded, watched, started again when they die, and all ended."""

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
"""A process that lived this long did not die at once: its next death counts as the first."""

HURRY_S = 5.0
"""When the user's patience is over: how long workers may take to give back what they run."""

QUICK_DEATHS = 5
_BACKOFF_S = 0.5
_BACKOFF_MAX_S = 8.0


class ChildGaveUp(HeadgateError):
    """A process died at once, again and again; `said` are its last lines."""

    def __init__(self, name: str, code: int, said: Sequence[str]) -> None:
        words = "\n".join(said) or "(nothing)"
        super().__init__(
            f"{name} ended at once {QUICK_DEATHS} times, with exit code {code}:\n{words}"
        )
        self.name = name
        self.code = code


class Child:
    """One process of ours. `hear` is given each line that it writes; `start` runs it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        hear: Callable[[str], None],
        grace_s: float,
        cwd: Path | None = None,
    ) -> None:
        self.name, self.argv, self.env, self.cwd = name, list(argv), dict(env), cwd
        self.grace_s = grace_s
        self.said: deque[str] = deque(maxlen=12)
        self._hear = hear
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._quick_deaths = 0
        self._asked = False

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

    def last_words(self) -> list[str]:
        """The last lines of a process that has ended."""
        self._join()
        return list(self.said)

    def start(self) -> None:
        """The process runs."""
        # The guard is isolated and without site-packages: quick, small, the same everywhere.
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
        self._asked = False
        self._reader = threading.Thread(
            target=self._read, args=(self._process,), name=f"{self.name} lines", daemon=True
        )
        self._reader.start()

    def tend(self) -> str | None:
        """A dead process is started again after a pause; says so. Raises ChildGaveUp in the end."""
        if self.running or self._process is None:
            return None
        now = time.monotonic()
        if self._start_at is None:
            code = self._process.returncode
            steady = now - self._started_at > STEADY_S
            self._quick_deaths = 1 if steady else self._quick_deaths + 1
            if self._quick_deaths >= QUICK_DEATHS:
                raise ChildGaveUp(self.name, code, self.last_words())
            pause_s = min(_BACKOFF_S * 2 ** (self._quick_deaths - 1), _BACKOFF_MAX_S)
            self._start_at = now + pause_s
            return f"{self.name} ended (exit code {code}); starting it again in {pause_s:g} s"
        if now >= self._start_at:
            self.start()
        return None

    def ask_to_end(self) -> None:
        """The process has been told, once, to finish what it does."""
        if self._process is not None and self.running and not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)

    def hurry(self) -> None:
        """The process has been told once more: a worker gives back at once what it runs."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """The process and all in its session are gone."""
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
                self.said.append(line)
                self._hear(line)

    def _join(self) -> None:
        # What a process left behind may hold the pipe open; its lines are not worth waiting for.
        if self._reader is not None:
            self._reader.join(1.0)


def stop_all(children: Sequence[Child], at_once: Callable[[], bool] = lambda: False) -> list[str]:
    """All processes are gone: asked first, hurried when the user's patience is over, then killed.

    They are asked in order, each after the last has ended. Gives the names of those killed.
    """
    killed = []
    try:
        for child in children:
            child.ask_to_end()
            until = time.monotonic() + child.grace_s
            while child.running and time.monotonic() < until and not at_once():
                time.sleep(0.02)
            if child.running and at_once():
                _hurry(children)
            if child.running:
                killed.append(child.name)
            child.kill()
    except BaseException:  # the user's patience ended in the middle
        try:
            _hurry(children)
        finally:
            for child in children:
                child.kill()
        raise
    return killed


def _hurry(children: Sequence[Child]) -> None:
    """The processes have ended, or have had `HURRY_S` to do so."""
    until = time.monotonic() + HURRY_S
    while time.monotonic() < until and any(child.running for child in children):
        for child in children:
            child.hurry()  # again and again: two at the same moment count as one
        time.sleep(0.1)
