"""An answer on standard output while it is made: `headgate submit --stream`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from headgate.producer.cli.terminal.exit_codes import say
from headgate.producer.cli.terminal.interrupt import Interrupt
from headgate.producer.cli.terminal.output import document, line, piece
from headgate.producer.errors import StreamBroken
from headgate.producer.local.own_worker import OwnWorker
from headgate.shared.errors import JobFailed

if TYPE_CHECKING:
    from headgate.producer.client.client import Client
    from headgate.shared.job.result import Result

_PULSE_S = 1.0


def print_stream(client: Client, job_id: str, as_json: bool) -> Result | None:
    """The result after its text was printed piece by piece; None when interrupted.

    With `as_json` each piece is a line `{"delta": "..."}`. Raises StreamBroken where what was
    printed is void and cannot be seen to be: on anything but a terminal.
    """
    words = f"interrupted; job {job_id} goes on: headgate result {job_id} --wait"
    with (
        Interrupt(words) as stop,
        OwnWorker(client.open(), say, stop.at_once) as workers,
    ):
        last = ""
        while True:
            try:
                came_at = time.monotonic()
                for text in client.stream(job_id, pulse_s=_PULSE_S):
                    if stop.wanted():
                        return None
                    if not text:
                        workers.care(time.monotonic() - came_at)
                        continue
                    came_at, last = time.monotonic(), text
                    if as_json:
                        document({"delta": text})
                    else:
                        piece(text)
            except StreamBroken as error:
                if as_json or not sys.stdout.isatty():
                    raise
                say(f"\n{error}")
                continue
            except JobFailed:
                pass  # its result says why
            finally:
                if last and not last.endswith("\n") and not as_json:
                    line("")
                    last = ""
            return client.result(job_id)
