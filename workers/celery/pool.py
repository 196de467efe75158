"""The asyncio pool for Celery: one event loop in one thread, hundreds of jobs in flight.

Celery's main thread puts jobs into an ordered inbox, and takes their ends from an ordered outbox.
The other side is woken once per burst, not once per job. kombu's hub keeps its callbacks in a set,
which has no order, and drops them on a reconnect. So ends stay in the outbox until it is drained.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.utils.functional import maybe_list
from celery.worker import state
from celery.worker.request import Request

from headgate.workers.celery import allocator, file_limit
from headgate.workers.celery.run_end import RunEnd
from headgate.workers.celery.shutdown import Stopping
from headgate.workers.delivery.leases import StopReason

T = TypeVar("T")
log = logging.getLogger("headgate.pool")

WAKE_S, BUSY = 0.005, 16
"""Celery's thread is woken this often while more than `BUSY` jobs run. Waking it is a system call
and makes two threads compete for the interpreter (30 us of a job's CPU)."""

RETURN_S = 2.5
"""How long each part of closing may take: stopped jobs, the database, the broker. All of them
together fit into `shutdown.LAST_S`."""


@dataclass(slots=True, eq=False)
class RunningJob:
    """One job in the pool. `tag` is its number, which Celery calls its pid."""

    tag: int
    run: Callable[[], Coroutine[Any, Any, Any]]
    on_end: Callable[[tuple[int, Any, float]], None]
    request: dict[str, Any]
    soft_limit_s: float | None = None
    hard_limit_s: float | None = None
    on_limit: Callable[[bool, float], None] | None = None
    stopped: StopReason | None = None
    task: asyncio.Task[None] | None = None
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def drop_message(self) -> None:
        """Drop what holds the prompt: a connection holds the context of the job that opened it."""
        del self.run, self.request, self.on_end, self.on_limit


current: ContextVar[RunningJob] = ContextVar("running")
"""The job that the current coroutine runs."""


class JobRequest(Request):
    """A request that only the pipeline ends: it is acknowledged after its end is recorded.

    Celery itself would acknowledge a revoked job at once, and show prompts in `inspect`.
    """

    def revoked(self) -> bool:
        """Return False: a revoked job runs into the pipeline, which ends it as cancelled."""
        if self.id in state.revoked or (self.stamps and self._is_stamped_as_revoked()):
            self.request_dict["revoked"] = True
        return False

    def _is_stamped_as_revoked(self) -> bool:
        revoked = {name: maybe_list(values) for name, values in state.revoked_stamps.items()}
        return any(
            value in (revoked.get(name) or ())
            for name, values in self.stamps.items()
            for value in maybe_list(values) or ()
        )

    def terminate(self, pool: Any, signal: object = None) -> None:
        """Cancel the job; its call to the provider is closed."""
        pool.stop_job(self.message.delivery_tag, "cancelled")

    def cancel(self, pool: Any, signal: object = None, emit_retry: bool = True) -> None:
        """Return the job to its queue (cold shutdown)."""
        pool.stop_job(self.message.delivery_tag, "shutdown")
        self._announce_cancelled(emit_retry=False)  # type: ignore[attr-defined]  # not in its stubs

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Log that a time limit passed; the pipeline ends the job."""
        kind = "soft" if soft else "hard"
        log.warning("job %s: stopped by its %s time limit of %g s", self.id, kind, timeout)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002  # Celery's name
        """Send the event. What Celery takes for a success may be another end, which it tells."""
        if isinstance(end := fields.get("result"), RunEnd):
            if end.event is None:
                return
            super().send_event(end.event, **end.fields(fields["runtime"]))
        else:
            super().send_event(type, **fields)

    @property
    def kwargsrepr(self) -> str:
        """What logs and events may say of the job: its model and its tenant, never its prompt."""
        return described(self.args, self.kwargs)

    def info(self, safe: bool = False) -> Any:
        """Return what `inspect` and Flower show of the job, without its prompt."""
        return {**super().info(safe=True), "args": "", "kwargs": self.kwargsrepr}


def described(args: Any, kwargs: Any) -> str:
    """Return model and tenant of the job that a message brings, as far as it names them."""
    fields = args[0] if args else kwargs
    if not isinstance(fields, dict):
        return "{}"
    request = fields.get("request") if "v" in fields else fields
    tenant = request.get("tenant") if isinstance(request, dict) else None
    found = {"model": fields.get("model"), "tenant": tenant}
    return repr({name: value for name, value in found.items() if _is_name(value)})


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 128 and value.isprintable()


class TaskPool(BasePool):
    """`worker_pool` of the worker app. Only `async def` tasks run in it."""

    signal_safe = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        file_limit.raise_limit()
        if self.limit:
            self.limit = file_limit.slots_within(self.limit)
        self._inbox: deque[RunningJob] = deque()
        self._outbox: deque[tuple[RunningJob, tuple[int, Any, float]]] = deque()
        self._jobs: dict[int, RunningJob] = {}
        self._hub: Any = None
        self._ended = threading.Event()
        self._is_waking = False
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self._stopped = False
        self.loop: asyncio.AbstractEventLoop = _new_loop()

    # Start and end of the loop.

    def on_start(self) -> None:
        """Run the loop in a thread of its own."""
        allocator.return_large_blocks()
        self._does_debug = False  # Celery would log each job with its arguments, prompt included
        self._thread = threading.Thread(target=self.loop.run_forever, name="jobs", daemon=True)
        self._thread.start()

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run the coroutine on the loop and return what it returns; for other threads."""
        return self.spawn(coroutine).result(timeout_s)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run the coroutine on the loop without waiting for it; for other threads."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """Call `call` on the loop soon; for other threads."""
        self.loop.call_soon_threadsafe(call, *args)

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
        for tag in list(self._jobs):
            self.stop_job(tag, "shutdown")
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

    @property
    def tags(self) -> set[int]:
        """The jobs whose end Celery does not know yet; for Celery's thread."""
        return set(self._jobs)

    def _wait_for_jobs(self, left_s: Callable[[], float]) -> None:
        while self._jobs and left_s() > 0:
            self._ended.wait(0.05)
            self.drain()
        self.drain()

    # From Celery's thread to the loop.

    def on_apply(
        self,
        target: Any,
        args: Any = (),
        kwargs: Any = None,
        callback: Any = None,
        accept_callback: Any = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        timeout_callback: Any = None,
        **_: Any,
    ) -> None:
        """Start the job on the loop; `callback` gets its end on Celery's thread."""
        name, _id, request = args[:3]
        task = self.app.tasks[name]
        positional, named = request["args"], request["kwargs"]
        running = RunningJob(
            tag=request["properties"]["delivery_tag"],
            run=lambda: task.run(*positional, **named),
            on_end=callback,
            request=request,
            soft_limit_s=soft_timeout,
            hard_limit_s=timeout,
            on_limit=timeout_callback,
        )
        self._jobs[running.tag] = running
        accept_callback(running.tag, time.monotonic())
        self._inbox.append(running)
        if len(self._inbox) == 1:
            self.loop.call_soon_threadsafe(self._begin)

    def stop_job(self, tag: int, reason: StopReason) -> None:
        """Cancel the job's coroutine for this reason. The first reason stays."""
        self.loop.call_soon_threadsafe(self._stop, tag, reason)

    def terminate_job(self, pid: int, signal: object = None) -> None:
        """Cancel the job, as Celery's `revoke(terminate=True)` asks."""
        self.stop_job(pid, "cancelled")

    # On the loop.

    def _begin(self) -> None:
        while self._inbox:
            running = self._inbox.popleft()
            running.task = self.loop.create_task(self._run(running))
            for limit_s, soft in ((running.soft_limit_s, True), (running.hard_limit_s, False)):
                if limit_s:
                    timer = self.loop.call_later(limit_s, self._limit, running, soft, limit_s)
                    running.timers.append(timer)

    def _limit(self, running: RunningJob, soft: bool, limit_s: float) -> None:
        self._stop(running.tag, "timeout")
        if running.on_limit is not None:
            running.on_limit(soft, limit_s)

    def _stop(self, tag: int, reason: StopReason) -> None:
        running = self._jobs.get(tag)
        if running is None or running.task is None or running.stopped is not None:
            return
        running.stopped = reason
        running.task.cancel()

    async def _run(self, running: RunningJob) -> None:
        current.set(running)
        began = time.monotonic()
        end: tuple[int, Any, float]
        try:
            value = await running.run()
            end = (0, value, time.monotonic() - began)
        except asyncio.CancelledError:
            end = (0, RunEnd(running.stopped or "cancelled", None), time.monotonic() - began)
        except Exception:
            end = (1, ExceptionInfo(), time.monotonic() - began)
        for timer in running.timers:
            timer.cancel()
        running.task = None  # the task's context holds `running`: a cycle with the prompt in it
        self._outbox.append((running, end))
        if not self._is_waking:
            self._is_waking = True
            self.loop.call_later(WAKE_S if len(self._jobs) > BUSY else 0, self._wake_celery)

    def _wake_celery(self) -> None:
        self._is_waking = False
        self._ended.set()
        if self._hub is not None:
            self._hub.call_soon(self.drain)

    # Back on Celery's thread.

    def register_with_event_loop(self, hub: Any) -> None:
        """Drain the outbox on every turn of the hub. Celery calls this after each reconnect."""
        self._hub = hub
        hub.on_tick.add(self.drain)

    def drain(self) -> None:
        """Report to Celery every job that has ended."""
        self._ended.clear()
        while self._outbox:
            running, end = self._outbox.popleft()
            self._jobs.pop(running.tag, None)
            try:
                running.on_end(end)
            except Exception:
                log.exception("Celery failed while it recorded the end of a job")
            running.drop_message()

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
