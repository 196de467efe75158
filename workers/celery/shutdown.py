"""Stops a worker on a signal, and in time, even if a server hangs.

On SIGTERM or SIGINT no new jobs start, running jobs may finish within the drain time, and the rest
return to their queues. On a second signal, or on SIGQUIT, all jobs return at once. Celery's own
handlers would wait for jobs without a limit, ignore a second SIGTERM, and sleep inside the handler
if `worker_soft_shutdown_timeout` is set.
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
"""How long returning jobs and closing may take after the drain; then the process is ended. It takes
well under a second if the servers answer."""

EXIT_DONE = 0
EXIT_UNREACHABLE = 3
"""Exit code if a server did not answer in time. Leases that are left then lapse."""

EXIT_WRONG_USE = 2
"""Exit code if a setting cannot be worked with, or no longer; all commands use it."""

SAME_S = 0.5
"""Signals this close together count once: `timeout` and some supervisors signal a process twice."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Stopping:
    """Whether this process is stopping, and how far it is.

    `may_interrupt`: the main thread waits for a server and has nothing to lose, so the first signal
    interrupts it. The signal handler takes no lock but the SimpleQueue's: others could be held.
    """

    def __init__(self, drain_s: float) -> None:
        self.drain_s = drain_s
        self.at_once = False
        self.may_interrupt = True
        self.exit_code: Callable[[], int] = lambda: EXIT_UNREACHABLE
        self.fault_code: int | None = None
        self._signals = 0
        self._began_at: float | None = None
        self._drained_at: float | None = None
        self._events: SimpleQueue[str] = SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._watcher: threading.Thread | None = None

    @property
    def has_begun(self) -> bool:
        """True once the process is stopping: no new job may start."""
        return self._began_at is not None

    def handle_signals(self) -> None:
        """Install our signal handlers, and unblock the signals that `headgate worker` blocked."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="stop", daemon=True)
            self._watcher.start()
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def on_begin(self, listener: Callable[[], None]) -> None:
        """Call `listener` when stopping begins, in a thread of its own."""
        self._listeners.append(listener)

    def begin(self) -> None:
        """Begin to stop. A second call changes nothing."""
        if self._began_at is None:
            self._began_at = time.monotonic()
            self._events.put("begun")

    def fail(self, code: int) -> None:
        """Begin to stop as on a signal, and end with this exit code; for any thread."""
        if self._began_at is None:
            self.fault_code = code
            state.should_stop = code  # type: ignore[assignment]  # its stubs know only None
            self.begin()

    def drain_left_s(self) -> float:
        """Return for how many seconds running jobs may go on."""
        if self.at_once or self._began_at is None:
            return 0.0
        return max(0.0, self._began_at + self.drain_s - time.monotonic())

    def drained(self) -> None:
        """End the drain: from now on the process may take `LAST_S` to end."""
        self._drained_at = self._drained_at or time.monotonic()
        self._events.put("drained")

    def ignore_signals(self) -> None:
        """Ignore signals from now on, so that none changes the exit code."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        again = self._signals and now - (self._began_at or now) > SAME_S
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
        self._events.get()
        log.warning("stopping: running jobs may finish for %.3g s", self.drain_left_s())
        # In a thread of their own: the call that a signal interrupted may have left a lock behind.
        threading.Thread(target=self._call_listeners, name="stop steps", daemon=True).start()
        while (left_s := self._end_by() - time.monotonic()) > 0:
            with suppress(Empty):
                self._events.get(timeout=left_s)
        code = self.exit_code()
        log.critical("not closed within %g s after the drain; exiting with code %d", LAST_S, code)
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(code)

    def _call_listeners(self) -> None:
        for listener in self._listeners:
            try:
                listener()
            except Exception:
                log.exception("a step of stopping failed; stopping goes on")

    def _end_by(self) -> float:
        began_at = self._began_at or time.monotonic()
        return (self._drained_at or began_at + self.drain_s) + LAST_S


class Signals(bootsteps.StartStopStep):
    """Installs our signal handlers after Celery has set its own, and starts the heartbeat."""

    requires = (components.Pool,)

    def start(self, parent: Any) -> None:
        """Install the handlers, and run the heartbeat on the pool's loop until it stops."""
        stopping, heartbeat = parent.app.stopping, parent.app.heartbeat
        stopping.handle_signals()
        stopping.on_begin(heartbeat.stopping)
        parent.pool.spawn(heartbeat.run(parent.hostname))
        parent.pool.at_stop(heartbeat.close)

    def stop(self, parent: Any) -> None:
        """Do nothing: the pool has ended, and the heartbeat with it."""

    terminate = stop
