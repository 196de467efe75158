"""Looks after the workers while a command waits for jobs.

On the embedded default a worker of the command's own runs while no other does, so that the first
`headgate batch run` works on a bare machine. On external servers workers are somebody's to run:
that none answers is said, and the command goes on waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Self, TextIO

import redis

from headgate.producer.admin.health import living_workers
from headgate.producer.installation import Installation
from headgate.producer.local.stack import LocalStack

QUIET_S = 3.0
"""Only while nothing ends is it worth a look whether workers live."""


class OwnWorker:
    """Call `care` every few seconds; `may_start`: whether a worker of our own may be started."""

    def __init__(
        self,
        at: Installation,
        tell: Callable[[str], None],
        at_once: Callable[[], bool],
        *,
        may_start: bool = True,
    ) -> None:
        self._at, self._tell, self._at_once = at, tell, at_once
        self._may_start = may_start and at.servers.is_embedded
        self._local: LocalStack | None = None
        self._log: TextIO | None = None
        self._looked = self._absent = self._warned = False

    @property
    def own(self) -> bool:
        """Whether a worker of ours runs."""
        return self._local is not None

    def care(self, quiet_s: float = QUIET_S) -> None:
        """A worker answers, as far as that is ours to see to; raises ChildGaveUp."""
        if self._local is not None:
            self._local.tend()
            return
        if self._looked and quiet_s < QUIET_S:
            return
        try:
            living = living_workers(self._at.redis, self._at.keys)
        except redis.RedisError:
            return  # who waits for the jobs meets the same, and says so
        first, self._looked = not self._looked, True
        if living:
            self._absent = self._warned = False
            return
        absent, self._absent = self._absent, True
        if self._may_start and (first or absent):
            self._start()
        elif absent and not self._warned:  # once may be a sign of life that an outage let lapse
            self._warned = True
            self._tell("no worker answers; start one with `headgate worker` (waiting meanwhile)")

    def stop(self) -> None:
        """No worker of ours runs any more; it finished, or gave back, what it had."""
        local, self._local = self._local, None
        if local is not None:
            local.stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> None:
        folder = self._at.settings.home_path / "logs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "worker.log"
        self._log = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self._tell(f"no worker runs: starting one for this command (its log: {path})")
        local = LocalStack(
            self._at.settings,
            tell=self._tell,
            hear=self._hear,
            worker_name=f"command-{os.getpid()}",
            installation=self._at,
            at_once=self._at_once,
        )
        self._local = local
        local.start()

    def _hear(self, _name: str, line: str) -> None:
        if self._log is not None and not self._log.closed:
            self._log.write(line + "\n")
