"""`headgate submit --stream`: prints an answer piece by piece as it arrives."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from headgate.producer.cli.terminal.interrupt import Interrupt
from headgate.producer.cli.terminal.output import print_json, print_line, print_note, print_text
from headgate.producer.errors import StreamBroken
from headgate.producer.local.own_worker import OwnWorker
from headgate.producer.waits.notes import AFTER_S, WaitNotes
from headgate.shared.errors import JobFailed

if TYPE_CHECKING:
    from headgate.producer.client.client import Client
    from headgate.shared.job.result import Result

_PULSE_S = 1.0


def print_stream(client: Client, job_id: str, as_json: bool) -> Result | None:
    """Print the answer piece by piece; return the result, or None if interrupted.

    With `as_json` each piece is a line `{"delta": "..."}`. Raise StreamBroken if another worker
    starts the answer again and the output is no terminal: its reader must discard the text.
    """
    message = f"interrupted; job {job_id} goes on; wait for it: headgate result {job_id} --wait"
    with (
        Interrupt(message) as stop,
        OwnWorker(client.open(), print_note, stop.at_once) as workers,
    ):
        last, notes = "", WaitNotes(print_note)
        while True:
            try:
                came_at = time.monotonic()
                for text in client.stream(job_id, pulse_s=_PULSE_S):
                    if stop.requested():
                        return None
                    if not text:
                        workers.check(quiet_s := time.monotonic() - came_at)
                        _show_wait(notes, client, job_id, 0.0 if last else quiet_s)
                        continue
                    came_at, last = time.monotonic(), text
                    if as_json:
                        print_json({"delta": text})
                    else:
                        print_text(text)
            except StreamBroken as error:
                if as_json or not sys.stdout.isatty():
                    raise
                last = _end_line(last)
                print_note(str(error))
                continue
            except JobFailed:
                pass  # the result has the reason
            finally:
                if not as_json:
                    last = _end_line(last)
            return client.result(job_id)


def _show_wait(notes: WaitNotes, client: Client, job_id: str, waited_s: float) -> None:
    """Tell what the job waits for while nothing of its answer has come."""
    if waited_s >= AFTER_S:
        notes.show(client.result(job_id).waiting_for, waited_s)


def _end_line(last: str) -> str:
    """End the line if the last piece did not; return the new last piece: none."""
    if last and not last.endswith("\n"):
        print_line("")
    return ""
