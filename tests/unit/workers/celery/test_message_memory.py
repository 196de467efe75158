"""A worker's memory: what a job's message took is given back when the job has ended."""

import asyncio
import contextvars
import gc
import subprocess
import sys
import weakref

import pytest

from headgate.workers.celery.pool import RunningJob, current

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


class Prompt:
    """Stands for the prompt of a message; a plain text cannot be referred to weakly."""


def test_an_ended_job_keeps_its_message_neither_in_a_cycle_nor_in_a_context() -> None:
    async def answer(prompt: Prompt) -> None:
        contexts.append(contextvars.copy_context())  # as a connection does that stays open

    async def run(running: RunningJob) -> None:
        current.set(running)
        await running.run()
        running.task = None

    async def main() -> weakref.ref[Prompt]:
        prompt = Prompt()
        running = RunningJob(
            tag=1, run=lambda: answer(prompt), on_end=lambda end: None, request={"args": [prompt]}
        )
        running.task = asyncio.ensure_future(run(running))
        await running.task if running.task else None
        running.drop_message()
        return weakref.ref(prompt)

    contexts: list[contextvars.Context] = []
    gc.disable()
    try:
        left = asyncio.run(main())
        assert contexts[0][current].tag == 1
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
def test_large_blocks_go_back_to_the_system_at_once() -> None:
    def left(word: str) -> int:
        argv = [sys.executable, "-c", _BLOCKS, word]
        return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)

    assert left("yes") < 9 << 20
