"""The asyncio pool for Celery: one event loop in one thread, hundreds of jobs in flight.

Jobs begin and end on the loop, from the Fetcher and back to it. Celery's thread has no part in it:
it asks the pool which jobs run when a command or a heartbeat needs them.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from celery.concurrency.base import BasePool

from headgate.shared.errors import place_of
from headgate.workers.celery import allocator, file_limit
from headgate.workers.celery.run_end import RunEnd
from headgate.workers.celery.running_job import RunningJob
from headgate.workers.celery.shutdown import Stopping
from headgate.workers.celery.task_events import TaskEvents
from headgate.workers.delivery.leases import StopReason
from headgate.workers.delivery.message import Arrival

T = TypeVar("T")
log = logging.getLogger("headgate.pool")

LOOK_S = 0.02
"""How often a pool that stops looks whether its last job has ended."""

RETURN_S = 2.5
"""How long each part of closing may take: stopped jobs, the database, the broker. All of them
together fit into `shutdown.LAST_S`."""


class RunnableTask(Protocol):
    """What the pool needs of the task that runs the jobs. Its limits are in seconds."""

    time_limit: Any
    soft_time_limit: Any

    async def run_job(self, job: RunningJob) -> RunEnd:
        """Run the job and return how the run ended."""


class TaskPool(BasePool):
    """`worker_pool` of the worker app. It runs jobs of one task, which the consumer names."""

    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        file_limit.raise_limit()
        if self.limit:
            self.limit = file_limit.slots_within(self.limit)
        self._jobs: dict[int, RunningJob] = {}
        self._task: RunnableTask
        self._acknowledge: Callable[[int], None]
        self._events: TaskEvents
        self._hostname = ""
        self.begun = 0
        """How many jobs have begun."""
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._stopped = False
        self.loop: asyncio.AbstractEventLoop = _new_loop()

    # Start and end of the loop.

    def on_start(self) -> None:
        """Run the loop in a thread of its own."""
        allocator.return_large_blocks()
        self._thread = threading.Thread(target=self.loop.run_forever, name="jobs", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run the coroutine on the loop and return what it returns; for other threads."""
        return self.spawn(coroutine).result(timeout_s)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run the coroutine on the loop without waiting for it; for any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def at_stop(self, closer: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `closer` on the loop after the last job. The last one registered runs first."""
        self._closers.append(closer)

    def on_stop(self) -> None:
        """Let running jobs finish within the drain time, return the rest, and end the loop."""
        if self._stopped:
            return
        self._stopped = True
        stopping: Stopping = self.app.stopping
        stopping.begin()
        self._wait_for_jobs(stopping.drain_left_s)
        stopping.drained()
        if self._jobs:
            log.warning("%d jobs did not end in time; returning them to the queue", len(self._jobs))
        for job in self.jobs:
            self.stop_job(job.tag, "shutdown")
        until = time.monotonic() + RETURN_S
        self._wait_for_jobs(lambda: until - time.monotonic())
        for closer in reversed(self._closers):
            try:
                self.call(closer(), RETURN_S)
            except TimeoutError:
                log.warning("no answer within %g s while closing; going on without it", RETURN_S)
            except Exception:
                log.exception("a step of closing failed; leases that are left will lapse")
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(RETURN_S)

    on_terminate = on_stop

    def _wait_for_jobs(self, left_s: Callable[[], float]) -> None:
        while self._jobs and left_s() > 0:
            time.sleep(LOOK_S)

    # For any thread.

    def serve(
        self,
        task: RunnableTask,
        *,
        acknowledge: Callable[[int], None],
        events: TaskEvents,
        hostname: str,
    ) -> None:
        """Run jobs by this task from now on. `acknowledge` gets the tag of each that has ended."""
        self._task, self._acknowledge = task, acknowledge
        self._events, self._hostname = events, hostname

    @property
    def jobs(self) -> list[RunningJob]:
        """The jobs that run now."""
        return list(self._jobs.values())

    def stop_job(self, tag: int, reason: StopReason) -> None:
        """Cancel the job's coroutine for this reason. The first reason stays."""
        self.loop.call_soon_threadsafe(self._stop, tag, reason)

    # On the loop.

    def begin(self, arrivals: Iterable[Arrival]) -> None:
        """Start these jobs."""
        for arrival in arrivals:
            job = RunningJob(arrival, self._hostname)
            log.debug("job %s begins", job.id)
            if self._events.wanted:
                self._events.began(job)
            job.task = self.loop.create_task(self._run(job))
            # Only now may others stop it: a task that is cancelled before its first step never
            # runs. In that step it looks whether it is revoked, and a command that comes then
            # finds it here.
            self._jobs[job.tag] = job
            self.begun += 1
            self._set_limits(job)

    def _set_limits(self, job: RunningJob) -> None:
        hard_s, soft_s = job.headers["timelimit"] or (None, None)
        for kind, limit_s in (
            ("soft", soft_s or self._task.soft_time_limit),
            ("hard", hard_s or self._task.time_limit),
        ):
            if limit_s:
                timer = self.loop.call_later(limit_s, self._limit, job, kind, limit_s)
                job.timers.append(timer)

    def _limit(self, job: RunningJob, kind: str, limit_s: float) -> None:
        self._stop(job.tag, "timeout")
        log.warning("job %s: stopped by its %s time limit of %g s", job.id, kind, limit_s)

    def _stop(self, tag: int, reason: StopReason) -> None:
        job = self._jobs.get(tag)
        if job is None or job.task is None or job.stopped is not None:
            return
        job.stopped = reason
        job.task.cancel()

    async def _run(self, job: RunningJob) -> None:
        try:
            end = await self._task.run_job(job)
        except asyncio.CancelledError:
            end = RunEnd(job.stopped or "cancelled", None)
        except Exception as error:
            log.error("job %s: a fault of Headgate's own: %s", job.id, place_of(error))
            end = RunEnd("failed", "task-failed", "internal")
        for timer in job.timers:
            timer.cancel()
        del self._jobs[job.tag]
        self._acknowledge(job.tag)
        if self._events.wanted:
            self._events.ended(job, end)

    # What Celery asks.

    @property
    def num_processes(self) -> int:
        """The number of jobs that may run at a time."""
        return int(self.limit)

    def resize(self, slots: int) -> None:
        """Let up to `slots` jobs run at a time from now on. Running jobs go on."""
        self.limit = file_limit.slots_within(slots)

    def _get_info(self) -> dict[str, Any]:
        shown = super()._get_info()  # type: ignore[misc]  # not in its stubs
        return {**shown, "running": len(self._jobs)}


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()
