"""Which processes a test has started and not ended: looked up after each of thousands of tests."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.support.child import lasting_pids, nursery_pids

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_LISTED = (_PROC / f"self/task/{threading.get_native_id()}/children").exists()
"""Whether the kernel lists the children of a thread, which takes no walk over all processes."""


class Descendants:
    """The processes that live below this one at a moment, to be compared with a later one."""

    def __init__(self) -> None:
        # A list of the kernel lacks entries if a child ends meanwhile; its start tells, too.
        self._at = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS) if _LISTED else 0
        self._pids = set(_below(os.getpid()))

    def newer(self) -> list[psutil.Process]:
        """Return the living ones that were started since, without servers of the session."""
        found = []
        for pid in _below(os.getpid()):
            if pid in self._pids:
                continue
            try:
                process = psutil.Process(pid)
                if self._is_newer(process):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def _is_newer(self, process: psutil.Process) -> bool:
        if process.status() == psutil.STATUS_ZOMBIE or "resource_tracker" in " ".join(
            process.cmdline()
        ):
            return False
        return not _LISTED or _started(process.pid) >= self._at


def _below(pid: int) -> Iterator[int]:
    """Yield the descendants of a process, without what belongs to a server of the session.

    What was forked from a nursery belongs to a test.
    """
    for child in _children(pid):
        if child not in lasting_pids:
            yield child
        if child not in lasting_pids or child in nursery_pids:
            yield from _below(child)


def _children(pid: int) -> list[int]:
    if not _LISTED:
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.NoSuchProcess:
            return []
    found: list[int] = []
    try:
        for thread in (_PROC / f"{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended
    return found


def _started(pid: int) -> int:
    """Return when a process was started, in ticks since the machine was; 0 if it has ended."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[19])
