"""What Ctrl-C does: the first asks to leave off, the second leaves at once, the third is final."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Self

from headgate.producer.cli.terminal.exit_codes import INTERRUPTED, say


class Interrupt:
    """While it is open, SIGINT, SIGTERM and SIGHUP set `wanted`; `words` are said at the first."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.count = 0
        self.signal = 0
        self._before: dict[int, object] = {}

    def wanted(self) -> bool:
        """Whether to leave off."""
        return self.count > 0

    def at_once(self) -> bool:
        """Whether to leave without waiting for anything."""
        return self.count > 1

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup sets SIGHUP to be ignored, and that is a wish to be heeded.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            with suppress(TypeError):
                signal.signal(number, before)  # type: ignore[arg-type]

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            self.signal = number
            say(self.words)
        elif self.count == 2:
            raise KeyboardInterrupt
        else:
            os._exit(INTERRUPTED)
