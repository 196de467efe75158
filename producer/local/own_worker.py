"""Checks that workers run while a command waits for jobs.

With the embedded server the command starts a worker of its own while no other worker runs, so
that the first `headgate batch run` works on a bare machine. Of many such commands one starts a
worker, which serves all; when it ends, the next one does so. With external servers it only warns
that no worker answers, and goes on waiting.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Self, TextIO

import redis

from headgate.producer.installation import Installation
from headgate.producer.local.stack import LocalStack
from headgate.producer.waits.find import living_workers
from headgate.shared.servers.valkey import try_lock

QUIET_S = 3.0
"""Workers are checked only when no job has ended for this long."""

LOG_BYTES = 16 * 1024 * 1024
"""A log that has grown past this is set aside when the next worker starts; one old one is kept."""


class OwnWorker:
    """Call `check` every few seconds; `may_start`: whether it may start a worker of its own."""

    def __init__(
        self,
        at: Installation,
        notify: Callable[[str], None],
        at_once: Callable[[], bool],
        *,
        may_start: bool = True,
    ) -> None:
        self._at, self._notify, self._at_once = at, notify, at_once
        self._may_start = may_start and at.servers.is_embedded
        self._local: LocalStack | None = None
        self._log: TextIO | None = None
        self._lock: int | None = None
        self._checked = self._absent = self._warned = False

    @property
    def is_started(self) -> bool:
        """Whether this command has started a worker of its own."""
        return self._local is not None

    def check(self, quiet_s: float = QUIET_S) -> None:
        """Start a worker, or warn, if none answers; raise ChildGaveUp if ours keeps dying.

        `quiet_s`: seconds since a job last ended.
        """
        if self._local is not None:
            self._local.restart_dead()
            return
        if self._checked and quiet_s < QUIET_S:
            return
        try:
            living = living_workers(self._at.redis, self._at.keys)
        except redis.RedisError:
            return  # the code that waits for the jobs meets the same error and reports it
        first, self._checked = not self._checked, True
        if living:
            self._absent = self._warned = False
            return
        absent, self._absent = self._absent, True
        if self._may_start and (first or absent):
            if self._takes_turn():
                self._start()
        elif absent and not self._warned:  # absent once: an outage may have let its key expire
            self._warned = True
            self._notify("no worker answers; start one with `headgate worker` (still waiting)")

    def stop(self) -> None:
        """Stop our worker, if there is one; it finishes its jobs or puts them back."""
        local, self._local = self._local, None
        if local is not None:
            local.stop()
        if self._log is not None:
            self._log.close()
            self._log = None
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _takes_turn(self) -> bool:
        """Return whether this command may start a worker: only one command at a time has its own.

        The kernel releases the lock however the command ends.
        """
        if self._lock is None:
            self._lock = try_lock(self._at.settings.home_path / "own-worker.lock", fcntl.LOCK_EX)
        return self._lock is not None

    def _start(self) -> None:
        folder = self._at.settings.home_path / "logs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "worker.log"
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(folder / "worker.log.1")
        self._log = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self._notify(f"no worker runs; starting one for this command (log: {path})")
        local = LocalStack(
            self._at.settings,
            notify=self._notify,
            on_line=self._on_line,
            worker_name=f"command-{os.getpid()}",
            installation=self._at,
            at_once=self._at_once,
        )
        self._local = local
        local.start()

    def _on_line(self, _name: str, line: str) -> None:
        if self._log is not None and not self._log.closed:
            self._log.write(line + "\n")
