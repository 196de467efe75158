"""Shows the progress of a batch: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headgate.producer.batch.run import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_EVERY_S = 5.0


class Bar:
    """A live bar on the terminal."""

    def __init__(self, bars: RichProgress, task: TaskID, visible: Callable[[str], str]) -> None:
        self._bars, self._task, self._visible = bars, task, visible

    def advance(self, *, done: int, failed: int) -> None:
        """Move the bar to `done`."""
        self._bars.update(self._task, completed=done, failed=failed)

    def waits_for(self, text: str) -> None:
        """Show the text at the end of the bar."""
        self._bars.update(self._task, waits=self._visible(text))

    def notify(self, text: str) -> None:
        """Print the text above the bar."""
        self._bars.console.print(self._visible(text), markup=False, highlight=False)


class PlainLines:
    """Lines on standard error, at most one every few seconds."""

    def __init__(self, total: int, notify: Callable[[str], None]) -> None:
        self._total = total
        self.notify = notify
        self._started_at = self._printed_at = time.monotonic()
        self._first: int | None = None
        self._waits = ""

    def waits_for(self, text: str) -> None:
        """Add the text to the lines that follow."""
        self._waits = f"; {text}" if text else ""

    def advance(self, *, done: int, failed: int) -> None:
        """Print a line if the last one is `PLAIN_EVERY_S` old."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
        if now - self._printed_at < PLAIN_EVERY_S:
            return
        self._printed_at = now
        rate = (done - self._first) / (now - self._started_at)
        line = f"{done} of {self._total} done, {failed} failed, {rate:.1f} a second"
        self.notify(line + self._waits)


@contextmanager
def showing(
    total: int, what: str, notify: Callable[[str], None], visible: Callable[[str], str]
) -> Iterator[Progress]:
    """Show the progress over `total` lines inside a `with` block.

    `notify`: prints a note. `visible`: escapes control characters for the terminal.
    """
    if not sys.stderr.isatty():
        yield PlainLines(total, notify)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[failed]} failed"), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[waits]}", markup=False),
    )  # fmt: skip
    with RichProgress(*columns, console=Console(stderr=True), refresh_per_second=8) as bars:
        yield Bar(bars, bars.add_task(what, total=total, failed=0, waits=""), visible)
