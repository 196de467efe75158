"""The memory of a process, watched while a test goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

MB = 1024 * 1024


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    return float(psutil.Process(pid).memory_info().rss) / MB


class Memory:
    """The most memory of a process since `watched` began, in MB above what it had then."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.base_mb = self.most_mb = resident_mb(pid)
        self._over = threading.Event()

    @property
    def grown_mb(self) -> float:
        return self.most_mb - self.base_mb

    def watch(self) -> None:
        while not self._over.wait(0.01):
            self.most_mb = max(self.most_mb, resident_mb(self._pid))

    def stop(self) -> None:
        self._over.set()


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """Watch the memory of this process in a thread."""
    memory = Memory(pid)
    thread = threading.Thread(target=memory.watch)
    thread.start()
    try:
        yield memory
    finally:
        memory.stop()
        thread.join()
