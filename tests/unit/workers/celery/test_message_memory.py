"""A worker's memory: what a job's message took is given back when the job has ended."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

from headgate.workers.celery.pool import TaskPool
from headgate.workers.celery.run_end import RunEnd
from headgate.workers.celery.running_job import RunningJob
from headgate.workers.celery.shutdown import Stopping
from headgate.workers.celery.task_events import TaskEvents
from headgate.workers.delivery.message import Arrival, Readable
from tests.support.child import BUSY, wait_until
from tests.support.rig import STANDARD

_BLOCKS = """
import sys
from headgate.workers.celery import allocator
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
if sys.argv[1] == "yes":
    allocator.return_large_blocks()
for _ in range(3):
    bytes(b"x") * (9 << 20)
before = rss()
blocks = [(b"x" * (9 << 20), [object() for _ in range(1000)]) for _ in range(10)]
pins = [b"x" * (700 << 10)]
del blocks
print(rss() - before)
"""


def test_an_ended_job_is_kept_neither_in_a_cycle_nor_in_a_context() -> None:
    contexts: list[contextvars.Context] = []
    ended = threading.Event()

    class Task:
        time_limit = soft_time_limit = None

        def __init__(self) -> None:
            self.seen: list[weakref.ref[RunningJob]] = []

        async def run_job(self, job: RunningJob) -> RunEnd:
            self.seen.append(weakref.ref(job))
            contexts.append(contextvars.copy_context())  # as a connection does that stays open
            await asyncio.sleep(0)
            return RunEnd("succeeded", "task-succeeded")

    pool, task = TaskPool(limit=1, app=SimpleNamespace(stopping=Stopping(60))), Task()
    events = TaskEvents(pool.loop, lambda: None)
    pool.serve(task, acknowledge=lambda _tag: ended.set(), events=events, hostname="me")
    pool.on_start()
    gc.disable()
    try:
        pool.loop.call_soon_threadsafe(_begin_one, pool)
        assert ended.wait(20 * BUSY)
        wait_until(lambda: task.seen[0]() is None, 5, "the job to be forgotten")
    finally:
        gc.enable()
        pool.app.stopping.at_once = True
        pool.on_stop()


def _begin_one(pool: TaskPool) -> None:
    headers = {"id": "1", "timelimit": None, "root_id": None, "parent_id": None, "retries": 0}
    pool.begin([Arrival(1, "1", STANDARD, 0, Readable(headers, [[], {}, {}], None))])


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_large_blocks_go_back_to_the_system_at_once() -> None:
    def left(word: str) -> int:
        argv = [sys.executable, "-c", _BLOCKS, word]
        return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    assert left("yes") < 9 << 20
