"""The pool begins jobs on its loop, stops them, and acknowledges each once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from headgate.workers.celery.pool import TaskPool
from headgate.workers.celery.run_end import RunEnd
from headgate.workers.celery.running_job import RunningJob
from headgate.workers.celery.shutdown import Stopping
from headgate.workers.celery.task_events import TaskEvents
from headgate.workers.delivery.message import Arrival, Readable
from tests.support.child import BUSY, wait_until
from tests.support.rig import STANDARD

SECRET = "the words of the caller"  # noqa: S105  # no password: what must not be seen
DONE = RunEnd("succeeded", "task-succeeded")


class Worker:
    """A pool whose jobs do what the test says; it notes what became of them."""

    def __init__(self, drain_s: float = 60) -> None:
        self.entered: list[str] = []
        self.stopped: dict[str, str | None] = {}
        self.acknowledged: list[int] = []
        self.sent: list[str] = []
        self.act: Callable[[], Any] = asyncio.Event().wait
        self.soft_time_limit: float | None = None
        self.time_limit: float | None = None
        self.pool = TaskPool(limit=10, app=SimpleNamespace(stopping=Stopping(drain_s)))
        self.events = TaskEvents(self.pool.loop, lambda: None)
        self.pool.serve(
            self, acknowledge=self.acknowledged.append, events=self.events, hostname="me"
        )
        self.pool.on_start()

    async def run_job(self, job: RunningJob) -> RunEnd:
        self.entered.append(job.id)
        try:
            await self.act()
        finally:
            self.stopped[job.id] = job.stopped
        return DONE

    def send(self, event: str, **_: Any) -> None:
        self.sent.append(event)

    def begin(self, tag: int, limits: list[float | None] | None = None, then: Any = None) -> None:
        """Begin a job on the loop, and call `then` in the same turn."""
        content = Readable(
            {"id": str(tag), "timelimit": limits, "root_id": None, "parent_id": None, "retries": 0},
            [[], {}, {}],
            None,
        )

        def begin() -> None:
            self.pool.begin([Arrival(tag, str(tag), STANDARD, 0, content)])
            if then is not None:
                then()

        self.pool.loop.call_soon_threadsafe(begin)

    def wait_for_ends(self, count: int) -> None:
        wait_until(lambda: len(self.acknowledged) == count, 20 * BUSY, f"{count} ends")
        assert self.pool.jobs == []


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.pool.app.stopping.at_once = True
    worker.pool.on_stop()


def test_a_job_that_is_stopped_in_the_turn_of_its_beginning_ends(worker: Worker) -> None:
    worker.begin(1, then=lambda: worker.pool.stop_job(1, "cancelled"))
    worker.wait_for_ends(1)
    assert worker.entered == ["1"]
    assert worker.stopped == {"1": "cancelled"}


def test_the_first_reason_for_a_stop_stays_and_one_for_no_job_is_harmless(worker: Worker) -> None:
    worker.begin(1)
    wait_until(lambda: worker.entered, 20 * BUSY, "the job")
    for tag, reason in ((9, "lost"), (1, "lost"), (1, "shutdown")):
        worker.pool.stop_job(tag, reason)  # type: ignore[arg-type]  # they are
    worker.wait_for_ends(1)
    assert worker.stopped == {"1": "lost"}


@pytest.mark.parametrize(
    ("own", "of_task", "kind"),
    [([0.05, None], (None, 60), "hard"), ([None, 0.05], (60, None), "soft"),
     (None, (0.05, None), "soft"), (None, (None, 0.05), "hard")],
)  # fmt: skip
def test_a_time_limit_ends_the_job(
    own: list[float | None] | None, of_task: tuple[float | None, float | None], kind: str,
    worker: Worker, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    worker.soft_time_limit, worker.time_limit = of_task
    worker.begin(1, own)
    worker.wait_for_ends(1)
    assert worker.stopped == {"1": "timeout"}
    assert f"stopped by its {kind} time limit of 0.05 s" in caplog.text


def test_the_limit_of_a_message_goes_before_that_of_the_task(worker: Worker) -> None:
    worker.time_limit = 60
    worker.begin(1, [600, None])
    wait_until(lambda: worker.entered, 20 * BUSY, "the job")
    [timer] = worker.pool.jobs[0].timers
    assert timer.when() > worker.pool.loop.time() + 60


def test_a_fault_of_the_task_ends_the_job_and_quotes_nothing(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    worker.act = fail
    worker.events.wanted = True
    with caplog.at_level(logging.ERROR):
        worker.begin(1)
        worker.wait_for_ends(1)
    assert "job 1: a fault of Headgate's own: ValueError" in caplog.text
    assert SECRET not in caplog.text
    worker.events.send(SimpleNamespace(enabled=True, groups=set(), send=worker.send))
    assert worker.sent == ["task-received", "task-started", "task-failed"]


def test_a_pool_that_stops_returns_what_does_not_end_in_its_time() -> None:
    worker = Worker(drain_s=0.2)
    worker.begin(1)
    wait_until(lambda: worker.entered, 20 * BUSY, "the job")
    worker.pool.on_stop()
    assert worker.stopped == {"1": "shutdown"}
    assert (worker.acknowledged, worker.pool.jobs) == ([1], [])
