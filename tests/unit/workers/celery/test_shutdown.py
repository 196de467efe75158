"""A process that stops comes to its end, whatever holds its threads up."""

from __future__ import annotations

import subprocess
import sys

from tests.support.child import BUSY

STUCK = """
import os, signal, threading
from headgate.workers.celery import shutdown

shutdown.LAST_S = 0.2
stopping = shutdown.Stopping(drain_s=0.1)
stopping.may_interrupt = False
lock = threading.Lock()
lock.acquire()
stopping.on_begin(lock.acquire)
stopping.handle_signals()
os.kill(os.getpid(), signal.SIGTERM)
lock.acquire()
"""


def test_a_process_ends_in_time_though_a_step_of_stopping_waits_for_a_lock() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK],
        capture_output=True,
        text=True,
        timeout=20 * BUSY,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (3, ""), ended.stderr
