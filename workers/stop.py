"""How a worker ends when it is told to: in time, also where a server hangs without a word."""

from __future__ import annotations

import os
import threading
from typing import Any

from celery import signals

LAST_S = 20.0
"""After the drain: how long giving back and closing may take before the process is ended."""

EXIT_STUCK = 70


def end_in_time(drain_s: float) -> None:
    """A worker that is told to stop has ended after the drain and `LAST_S`, whatever happens.

    The leases that it could not give back lapse by themselves.
    """

    def arm(**_: Any) -> None:
        timer = threading.Timer(drain_s + LAST_S, os._exit, (EXIT_STUCK,))
        timer.daemon = True
        timer.start()

    signals.worker_shutting_down.connect(arm, weak=False)
