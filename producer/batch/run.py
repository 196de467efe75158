"""Runs a batch to its end: queues its lines, follows its jobs, writes each line of output once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from producer.batch.forms import bad_line, output_line
from producer.batch.intake import Intake, prepared_line
from producer.batch.lines import BadLine, read
from producer.batch.look import Look
from producer.batch.output import Output
from producer.batch.patience import Patience
from producer.batch.record import Batch, Ended, Record
from producer.installation import Installation

LOOK_EVERY_S = 0.1
CARE_EVERY_S = 2.0
IN_FLIGHT = 10_000
"""Jobs of one batch queued and unfinished: enough for any number of workers, little for Redis."""

_LINES_AT_ONCE = 500


class Progress(Protocol):
    """Shows how far a batch is."""

    def advance(self, *, done: int, failed: int) -> None:
        """`done` of the batch's lines have their line of output, `failed` of them no answer."""

    def tell(self, words: str) -> None:
        """Shows one line of words besides."""


@dataclass(slots=True)
class Run:
    """One command's work on one batch.

    `written`: what stands in the output: line to whether it is an answer. `stop` says whether to
    leave off; `care` looks after the workers: it is given the seconds since a job ended last.
    """

    at: Installation
    batch: Batch
    input_path: Path
    output: Output
    progress: Progress
    stop: Callable[[], bool]
    care: Callable[[float], None]
    written: dict[int, bool] = field(default_factory=dict)
    max_in_flight: int = IN_FLIGHT
    failed: int = field(init=False)
    record: Record = field(init=False)
    patience: Patience = field(init=False)
    look: Look = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is asked of a server yet."""
        self.record = Record(self.at.engine)
        self.patience = Patience(self.at, self.progress.tell, self.stop)
        self.look = Look(self.record, self.batch.id)
        self.look.seen.update(self.written)
        self.failed = sum(1 for answered in self.written.values() if not answered)

    def submit_and_follow(self) -> bool:
        """Every line of the input has its line of output; False when `stop` came first."""
        on_record = self.patience(lambda: self.record.lines_on_record(self.batch.id))
        lines = read(self.input_path, self.batch.defaults, self.batch.input_sha256)
        intake = Intake(self.at, self.patience, self.batch.id, lines, on_record, self.written)
        intake.cancelled = self.batch.cancelled_at_ms is not None
        waiting = len(on_record - self.written.keys())
        look_at = care_at = 0.0
        self._show()
        while not self.stop():
            if not intake.done and waiting < self.max_in_flight:
                before = len(on_record)
                self._write_bad(intake.feed(self.max_in_flight - waiting))
                waiting += len(on_record) - before
                if intake.done:
                    self.mark_submitted(on_record)
            now = time.monotonic()
            if now >= look_at:
                look_at = now + LOOK_EVERY_S
                waiting -= self.collect()
            if intake.done and waiting <= 0:
                self.output.sync()
                return True
            if now >= care_at:
                care_at = now + CARE_EVERY_S
                self.care(self.look.quiet_s if waiting else 0.0)
                intake.cancelled = self.patience(lambda: self.record.is_cancelled(self.batch.id))
            if intake.done or waiting >= self.max_in_flight:
                time.sleep(max(0.0, look_at - time.monotonic()))
        return False

    def submit(self) -> int:
        """Every good line of the input has a job; gives how many lines were bad."""
        on_record = self.patience(lambda: self.record.lines_on_record(self.batch.id))
        lines = read(self.input_path, self.batch.defaults, self.batch.input_sha256)
        intake = Intake(self.at, self.patience, self.batch.id, lines, on_record, ())
        bad = 0
        while not intake.done and not self.stop():
            for line in intake.feed(_LINES_AT_ONCE):
                bad += 1
                self.progress.tell(line.message)
            self.progress.advance(done=len(on_record) + bad, failed=bad)
        if intake.done:
            self.mark_submitted(on_record)
        return bad

    def collect(self) -> int:
        """What has ended since the last call is written; gives how many lines that are."""
        news = self.patience(self.look)
        for first in range(0, len(news), _LINES_AT_ONCE):
            chunk = news[first : first + _LINES_AT_ONCE]
            self._write(self.patience(partial(self.record.results, self.batch.id, chunk)))
        return len(news)

    def write_refused(self) -> None:
        """The lines that never became jobs have their lines of output, with their faults."""
        on_record = self.record.lines_on_record(self.batch.id)
        for line in read(self.input_path, self.batch.defaults, self.batch.input_sha256):
            if line.number in on_record or line.number in self.written:
                continue
            fault = line
            if not isinstance(line, BadLine):
                job = prepared_line(self.at, self.batch.id, line)
                message = f"line {line.number}: was refused when the batch was submitted"
                was = BadLine(line.number, line.custom_id, "invalid_request", message)
                fault = job if isinstance(job, BadLine) else was
            if isinstance(fault, BadLine):
                self._write_bad([fault])

    def mark_submitted(self, on_record: set[int]) -> None:
        """The batch counts as submitted, with the lines that have no job as bad ones."""
        bad = self.batch.lines - len(on_record)
        self.patience(lambda: self.record.mark_submitted(self.batch.id, bad))

    def _write(self, ended: Iterable[Ended]) -> None:
        lines, answered = [], {}
        for job in ended:
            custom_id = job.custom_id or f"line-{job.line}"
            result = job.result or _expired(job)
            lines.append(output_line(job.line, self.batch.id, custom_id, result))
            answered[job.line] = result["status"] == "succeeded"
        self.output.append(lines)
        self.written |= answered
        self.failed += sum(1 for right in answered.values() if not right)
        self._show()

    def _write_bad(self, bad: list[BadLine]) -> None:
        if not bad:
            return
        self.output.append(
            [bad_line(b.number, self.batch.id, b.custom_id, b.code, b.message) for b in bad]
        )
        self.written |= dict.fromkeys((line.number for line in bad), False)
        self.failed += len(bad)
        self._show()

    def _show(self) -> None:
        self.progress.advance(done=len(self.written), failed=self.failed)


def _expired(job: Ended) -> dict[str, object]:
    message = f"the job {job.status}, but its result is no longer kept (HEADGATE_RESULT_TTL_S)"
    error = {"code": "internal", "message": message, "retryable": False}
    return {"id": job.job_id, "status": "failed", "model": None, "error": error}
