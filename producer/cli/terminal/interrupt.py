"""What Ctrl-C does: the first requests a stop, the second stops at once, the third kills."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Self

from headgate.producer.cli.terminal.exit_codes import INTERRUPTED
from headgate.producer.cli.terminal.output import print_note

STOPPING = "stopping: running jobs may finish (press Ctrl-C again to stop at once)"
"""The message of commands that let running jobs finish."""


class Interrupt:
    """Handles SIGINT, SIGTERM and SIGHUP inside a `with` block.

    The first signal prints `message` and sets `requested`. The second also raises
    KeyboardInterrupt; the third ends the process.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self.count = 0
        self.signal = 0
        self._before: dict[int, object] = {}

    def requested(self) -> bool:
        """Return whether to stop."""
        return self.count > 0

    def at_once(self) -> bool:
        """Return whether to stop without waiting for anything."""
        return self.count > 1

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup sets SIGHUP to be ignored; respect that.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            with suppress(TypeError):
                signal.signal(number, before)  # type: ignore[arg-type]

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.signal = number
            print_note(self.message)
        elif self.count == 2:
            raise KeyboardInterrupt
        else:
            os._exit(INTERRUPTED)
