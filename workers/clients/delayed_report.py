"""Reports that may come a moment late, so that one stands for many jobs and costs none of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias

Report: TypeAlias = Coroutine[Any, Any, Any]


class DelayedReport:
    """Gather, then report: sends `reports()` once, `delay_s` after the first `schedule`."""

    def __init__(self, delay_s: float, reports: Callable[[], Iterable[Report]]) -> None:
        self._delay_s = delay_s
        self._reports = reports
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def schedule(self) -> None:
        """Report within `delay_s`; what is gathered until then goes along."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._delay_s, self._send)

    def send(self, report: Report) -> None:
        """Send this report in the background at once. Nobody hears of it if it fails."""
        task = asyncio.ensure_future(report)
        self._running.add(task)
        task.add_done_callback(self._ended)

    def close(self) -> None:
        """Report nothing more; what is gathered now is lost.

        Running reports are cancelled, so that none reconnects to a server that was left.
        """
        if self._timer is not None:
            self._timer.cancel()
        for task in self._running:
            task.cancel()

    def _send(self) -> None:
        self._timer = None
        for report in self._reports():
            self.send(report)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken, so that asyncio does not log it
