"""How a worker is told to end, and that it has ended in time, also where a server hangs.

SIGTERM and SIGINT: no new jobs, running ones may finish for the drain time, the rest go back. A
second one, or SIGQUIT: back at once. Celery's own handlers would drain without a bound, ignore a
second SIGTERM, and sleep inside the handler where `worker_soft_shutdown_timeout` is set.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from billiard.common import REMAP_SIGTERM
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import components, state

log = logging.getLogger("headgate.stop")

LAST_S = 10.0
"""After the drain: how long giving back and closing may take before the process is ended. Where
servers answer it takes well under a second."""

EXIT_DONE = 0
EXIT_UNREACHABLE = 3
"""A server did not answer in time (the contract's code); leases that are left lapse."""

SAME_S = 0.5
"""Signals this close together are one: `timeout` and some supervisors signal a process twice."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Stopping:
    """What this process has been told of its end.

    `may_interrupt`: the main thread waits for a server and has nothing to lose; the first signal
    tears it out. Handlers do as little as that: other locks than a SimpleQueue's could be held.
    """

    def __init__(self, drain_s: float) -> None:
        self.drain_s = drain_s
        self.at_once = False
        self.may_interrupt = True
        self.exit_code: Callable[[], int] = lambda: EXIT_UNREACHABLE
        self._signals = 0
        self._told_at: float | None = None
        self._over_at: float | None = None
        self._words: SimpleQueue[str] = SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._watcher: threading.Thread | None = None

    @property
    def told(self) -> bool:
        """Whether the end has begun: no new job is to start."""
        return self._told_at is not None

    def heed(self) -> None:
        """Signals are heard, those included that came while `headgate worker` held them back."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="stop", daemon=True)
            self._watcher.start()
        for number in SIGNALS:
            signal.signal(number, self._hear)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def when_told(self, listener: Callable[[], None]) -> None:
        """`listener` is called once the end has begun, in a thread of its own."""
        self._listeners.append(listener)

    def begin(self) -> None:
        """The end has begun; whoever asks a second time changes nothing."""
        if self._told_at is None:
            self._told_at = time.monotonic()
            self._words.put("told")

    def drain_left_s(self) -> float:
        """How long running jobs may go on."""
        if self.at_once or self._told_at is None:
            return 0.0
        return max(0.0, self._told_at + self.drain_s - time.monotonic())

    def drained(self) -> None:
        """From now on the process may take `LAST_S` to end."""
        self._over_at = self._over_at or time.monotonic()
        self._words.put("drained")

    def leave(self) -> None:
        """Nothing is left to be told; a signal that comes now must not change the exit code."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self._signals and now - (self._told_at or now) > SAME_S
        remapped = REMAP_SIGTERM == "SIGQUIT" and number == signal.SIGTERM
        self._signals += 1
        self.begin()
        if number == signal.SIGQUIT or remapped or again:
            self.at_once = True
            self.drained()
        state.should_stop = EXIT_DONE  # type: ignore[assignment]  # its stubs know only None
        if self.may_interrupt:
            self.may_interrupt = False
            raise WorkerShutdown(EXIT_DONE)

    def _watch(self) -> None:
        self._words.get()
        log.warning("stopping: running jobs may finish for %.3g s", self.drain_left_s())
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                log.exception("stopping goes on")
        while (left_s := self._end_by() - time.monotonic()) > 0:
            with suppress(Empty):
                self._words.get(timeout=left_s)
        code = self.exit_code()
        log.critical("not closed within %g s after the drain; ended with code %d", LAST_S, code)
        os._exit(code)

    def _end_by(self) -> float:
        told_at = self._told_at or time.monotonic()
        return (self._over_at or told_at + self.drain_s) + LAST_S


class Signals(bootsteps.StartStopStep):
    """Our signal handlers stand again after Celery has set its own; the pool's loop shows life."""

    requires = (components.Pool,)

    def start(self, parent: Any) -> None:
        """From here on this process says what it does: alive, and later ready and stopping."""
        stopping, life = parent.app.stopping, parent.app.life
        stopping.heed()
        stopping.when_told(life.stopping)
        parent.pool.spawn(life.run(parent.hostname))
        parent.pool.at_stop(life.close)

    def stop(self, parent: Any) -> None:
        """Nothing is left to do: the pool has ended, and life with it."""

    terminate = stop
