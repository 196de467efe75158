"""Runs a batch to its end: queues its lines, follows its jobs, writes each line of output once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from headgate.producer.batch.enqueue import BatchEnqueue, prepared_line
from headgate.producer.batch.formats import bad_line, output_line
from headgate.producer.batch.input import BadLine, read
from headgate.producer.batch.output import Output
from headgate.producer.batch.poll import Poll
from headgate.producer.batch.rows import Batch, BatchRows, EndedLine
from headgate.producer.installation import Installation
from headgate.producer.reconnect import Reconnect
from headgate.producer.results import cancel
from headgate.producer.submit.submit import submitter_for

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
    record: BatchRows = field(init=False)
    patience: Reconnect = field(init=False)
    look: Poll = field(init=False)

    def __post_init__(self) -> None:
        """Nothing is asked of a server yet."""
        self.record = BatchRows(self.at.engine)
        self.patience = Reconnect(self.at, self.progress.tell, self.stop)
        self.look = Poll(self.record, self.batch.id)
        self.look.seen.update(self.written)
        self.failed = sum(1 for answered in self.written.values() if not answered)

    def submit_and_follow(self) -> bool:
        """Every line of the input has its line of output; False when `stop` came first."""
        on_record = self.patience(lambda: self.record.lines_on_record(self.batch.id))
        lines = read(self.input_path, self.batch.defaults, self.batch.input_sha256)
        intake = BatchEnqueue(self.at, self.patience, self.batch.id, lines, on_record, self.written)
        self._heed_cancel(intake)
        waiting = len(on_record - self.written.keys())
        look_at = care_at = 0.0
        self._show()
        while not self.stop():
            if not intake.done and waiting < self.max_in_flight:
                before = len(on_record)
                self._write_bad(intake.feed(self.max_in_flight - waiting))
                waiting += len(on_record) - before
                if intake.done:
                    mark_submitted(self.record, self.patience, self.batch, on_record)
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
                self._heed_cancel(intake)
            if intake.done or waiting >= self.max_in_flight:
                time.sleep(max(0.0, look_at - time.monotonic()))
        return False

    def follow(self) -> bool:
        """Every job of the batch has its line of output; False when `stop` came first."""
        care_at = 0.0
        self._show()
        while not self.stop():
            self.collect()
            if not self.patience(lambda: self.record.open_jobs(self.batch.id)):
                self.collect()
                return True
            if time.monotonic() >= care_at:
                care_at = time.monotonic() + CARE_EVERY_S
                self.care(self.look.quiet_s)
            time.sleep(5 * LOOK_EVERY_S)
        return False

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
        submitter = submitter_for(self.at)
        for line in read(self.input_path, self.batch.defaults, self.batch.input_sha256):
            if line.number in on_record or line.number in self.written:
                continue
            fault = line
            if not isinstance(line, BadLine):
                job = prepared_line(submitter, self.batch.id, line)
                message = f"line {line.number}: was refused when the batch was submitted"
                was = BadLine(line.number, line.custom_id, "invalid_request", message)
                fault = job if isinstance(job, BadLine) else was
            if isinstance(fault, BadLine):
                self._write_bad([fault])

    def _heed_cancel(self, intake: BatchEnqueue) -> None:
        """Once the batch is cancelled: no line is queued any more, no job left open."""
        if self.patience(lambda: self.record.is_cancelled(self.batch.id)):
            intake.cancelled = True
            self.patience(lambda: cancel_open(self.at, self.batch.id))

    def _write(self, ended: Iterable[EndedLine]) -> None:
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


def queue_all(
    at: Installation,
    batch: Batch,
    input_path: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> int:
    """Every good line of the input has a job, unless `stop` came first; how many were bad."""
    record, patience = BatchRows(at.engine), Reconnect(at, progress.tell, stop)
    on_record = patience(lambda: record.lines_on_record(batch.id))
    lines = read(input_path, batch.defaults, batch.input_sha256)
    intake = BatchEnqueue(at, patience, batch.id, lines, on_record, ())
    bad = 0
    while not intake.done and not stop():
        intake.cancelled = patience(lambda: record.is_cancelled(batch.id))
        for line in intake.feed(_LINES_AT_ONCE):
            bad += 1
            progress.tell(line.message)
        progress.advance(done=len(on_record) + bad, failed=bad)
    if intake.done:
        mark_submitted(record, patience, batch, on_record)
    return bad


def mark_submitted(
    record: BatchRows, patience: Reconnect, batch: Batch, on_record: set[int]
) -> None:
    """The batch counts as submitted, with the lines that have no job as bad ones."""
    patience(lambda: record.mark_submitted(batch.id, batch.lines - len(on_record)))


def cancel_open(at: Installation, batch_id: str) -> tuple[int, int]:
    """What has not ended of the batch is cancelled; how many at once, and how many are running."""
    ids = BatchRows(at.engine).open_jobs(batch_id)
    ttl_s = at.settings.result_ttl_s
    became = cancel.cancel(at.engine, at.redis, at.keys, ids, result_ttl_s=ttl_s)
    return len(became.ended), len(became.running)


def _expired(job: EndedLine) -> dict[str, object]:
    message = f"the job {job.status}, but its result is no longer kept (HEADGATE_RESULT_TTL_S)"
    error = {"code": "internal", "message": message, "retryable": False}
    return {"id": job.job_id, "status": "failed", "model": None, "error": error}
