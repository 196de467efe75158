"""Shows the progress of a batch: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headgate.producer.batch.pace import BatchFigures
from headgate.producer.batch.run import Progress
from headgate.producer.waits.notes import WaitNotes
from headgate.shared.job.ids import now_ms
from headgate.shared.job.waiting_for import WaitingFor

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_EVERY_S = 5.0
STILL_EVERY_S = 60.0
"""How often the same is told again while no line is done."""


class Bar:
    """A live bar on the terminal, with the figures and what is waited for below it."""

    def __init__(self, bars: RichProgress, task: TaskID, visible: Callable[[str], str]) -> None:
        self._bars, self._task, self._visible = bars, task, visible
        self._figures: BatchFigures | None = None
        self._waits = ""
        self.live: Live | None = None

    def advance(self, *, done: int, failed: int) -> None:
        """Move the bar to `done`."""
        self._bars.update(self._task, completed=done, failed=failed)

    def show(self, figures: BatchFigures) -> None:
        """Show the figures below the bar."""
        self._figures = figures

    def waits_for(self, waiting_for: WaitingFor | None) -> None:
        """Show below the bar what the jobs wait for."""
        text = "" if waiting_for is None else waiting_for.in_words(now_ms())
        self._waits = self._visible(text)

    def notify(self, text: str) -> None:
        """Print the text above the bar."""
        console = self._bars.console if self.live is None else self.live.console
        console.print(self._visible(text), markup=False, highlight=False)

    def renderable(self) -> RenderableType:
        """Return what stands on the terminal now."""
        from rich.console import Group
        from rich.text import Text

        below = [self._figures.in_words()] if self._figures else []
        below += [self._waits] if self._waits else []
        return Group(self._bars.get_renderable(), *(Text(line) for line in below))


class PlainLines:
    """Lines on standard error, at most one every few seconds."""

    def __init__(self, total: int, notify: Callable[[str], None]) -> None:
        self._total = total
        self.notify = notify
        self._started_at = self._printed_at = time.monotonic()
        self._done = -1
        self._figures: BatchFigures | None = None
        self._notes = WaitNotes(notify)

    def show(self, figures: BatchFigures) -> None:
        """Add the figures to the lines that follow."""
        self._figures = figures

    def waits_for(self, waiting_for: WaitingFor | None) -> None:
        """Print a line with the reason when it is a new one, and once a minute."""
        self._notes.show(waiting_for, time.monotonic() - self._started_at)

    def advance(self, *, done: int, failed: int) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        every_s = STILL_EVERY_S if done == self._done else PLAIN_EVERY_S
        if now - self._printed_at < every_s:
            return
        self._printed_at, self._done = now, done
        figures = f", {self._figures.in_words()}" if self._figures else ""
        self.notify(f"{done} of {self._total} done, {failed} failed{figures}")


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
    from rich.live import Live
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    bars = RichProgress(*_columns(), console=console, auto_refresh=False)
    bar = Bar(bars, bars.add_task(what, total=total, failed=0), visible)
    with Live(console=console, refresh_per_second=8, get_renderable=bar.renderable) as bar.live:
        yield bar


def _columns() -> tuple[Any, ...]:
    from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn

    return (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )  # fmt: skip
