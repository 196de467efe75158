"""Celery's events about jobs: noted on the loop, sent by Celery's thread.

Nothing is noted while nobody has asked for them, by `celery worker -E` or `control enable_events`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from headgate.shared.broker.queues import TASK
from headgate.workers.celery.run_end import REFUSED, RunEnd
from headgate.workers.celery.running_job import RunningJob

log = logging.getLogger("headgate.events")

WAKE_S = 0.005
"""Events of this time are sent together. Each waking of Celery's thread is a system call, and then
two threads compete for the interpreter (30 us)."""


class TaskEvents:
    """The events that wait for Celery's thread.

    `wake` wakes that thread. `wanted`: somebody has asked for events.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        self.wanted = False
        self._loop = loop
        self._wake_sender = wake
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self._is_waking = False

    # On the loop.

    def began(self, job: RunningJob) -> None:
        """Note that the job has come, and has begun."""
        headers, expires_at_ms = job.headers, job.arrival.content.expires_at_ms
        self._note(
            "task-received",
            {
                "uuid": job.id,
                "name": TASK,
                "args": "",
                "kwargs": job.described(),
                "root_id": headers["root_id"],
                "parent_id": headers["parent_id"],
                "retries": headers["retries"],
                "eta": None,  # such a job waits in Redis, so that it is due here
                "expires": None if expires_at_ms is None else _iso(expires_at_ms),
            },
        )
        self._note("task-started", {"uuid": job.id})

    def ended(self, job: RunningJob, end: RunEnd) -> None:
        """Note how the run of the job ended."""
        if end.event is not None:
            runtime_s = max(0.0, time.time() - job.time_start)
            self._note(end.event, {"uuid": job.id, **end.fields(runtime_s)})

    def refused(self, job_id: str) -> None:
        """Note that a message was refused before it became a job here."""
        if self.wanted:
            fields = {"uuid": job_id, "name": TASK, **REFUSED.fields(0.0)}
            self._note("task-failed", fields)

    def _note(self, event: str, fields: dict[str, Any]) -> None:
        self._waiting.append((event, fields))
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_later(WAKE_S, self._wake)

    def _wake(self) -> None:
        self._is_waking = False
        self._wake_sender()

    # On Celery's thread.

    def send(self, dispatcher: Any) -> None:
        """Send what waits by Celery's dispatcher, and ask it whether events are wanted."""
        groups = dispatcher.groups
        self.wanted = dispatcher.enabled and (not groups or "task" in groups)
        while self._waiting:
            event, fields = self._waiting.popleft()
            try:
                dispatcher.send(event, **fields)
            except Exception:
                log.exception("Celery failed while it sent an event")


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
