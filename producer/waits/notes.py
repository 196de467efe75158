"""Tells what a command waits for: after some seconds, and again when the reason changes."""

from __future__ import annotations

import time
from collections.abc import Callable

from headgate.shared.job.ids import now_ms
from headgate.shared.job.waiting_for import WaitingFor

AFTER_S = 3.0
"""How long a command waits without a word."""

AGAIN_S = 60.0
"""After how long a reason is told again; a job may wait for several in turns."""


class WaitNotes:
    """Call `show` again and again with what is waited for. `notify` prints one line."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._told_at: dict[tuple[str, str], float] = {}

    def show(self, waiting_for: WaitingFor | None, waited_s: float) -> None:
        """Tell the reason, unless it is too early or was told just now.

        That no worker runs at all is told by `OwnWorker`, which may start one.
        """
        if waiting_for is None or waited_s < AFTER_S or waiting_for.why == "no worker runs":
            return
        reason, now = (waiting_for.kind, waiting_for.name), time.monotonic()
        if now - self._told_at.get(reason, -AGAIN_S) < AGAIN_S:
            return
        self._told_at[reason] = now
        self._notify(waiting_for.with_help(now_ms()))
