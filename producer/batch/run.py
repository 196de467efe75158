"""Runs a batch to its end: queues its lines, polls its jobs, writes each line of output once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from headgate.producer.batch.enqueue import BatchEnqueue, prepare_line
from headgate.producer.batch.formats import bad_line, output_line
from headgate.producer.batch.input import BadLine, read
from headgate.producer.batch.output import Output
from headgate.producer.batch.pace import BatchFigures, Pace, pool_finder
from headgate.producer.batch.poll import Poll
from headgate.producer.batch.rows import Batch, BatchRows, EndedLine
from headgate.producer.batch.waits import wait_of
from headgate.producer.installation import Installation
from headgate.producer.reconnect import Reconnect
from headgate.producer.results import cancel
from headgate.producer.submit.submit import submitter_for
from headgate.producer.waits.find import WaitFinder
from headgate.shared.job.waiting_for import WaitingFor

POLL_EVERY_S = 0.1
CHECK_EVERY_S = 2.0
LOOK_EVERY_S = 5.0
"""How often a run looks what its jobs wait for."""

IN_FLIGHT = 10_000
"""Jobs of one batch that wait or run: enough for any number of workers, little for Redis."""

_CHUNK_LINES = 500


class Progress(Protocol):
    """Shows the progress of a batch."""

    def advance(self, *, done: int, failed: int) -> None:
        """Show that `done` lines have a line of output, `failed` of them without an answer."""

    def show(self, figures: BatchFigures) -> None:
        """Show how fast the batch goes, and what it has cost."""

    def waits_for(self, waiting_for: WaitingFor | None) -> None:
        """Show what the waiting jobs wait for; None: nothing in particular."""

    def notify(self, text: str) -> None:
        """Show one line of text as well."""


@dataclass(slots=True)
class Run:
    """One command's work on one batch.

    `written`: the places (see `samples`) of the lines in the output, and whether each is an answer.
    `stop`: returns whether to stop. `check_workers`: called every `CHECK_EVERY_S` with the seconds
    since a job last ended.
    """

    at: Installation
    batch: Batch
    input_path: Path
    output: Output
    progress: Progress
    stop: Callable[[], bool]
    check_workers: Callable[[float], None]
    written: dict[int, bool] = field(default_factory=dict)
    max_in_flight: int = IN_FLIGHT
    failed: int = field(init=False)
    record: BatchRows = field(init=False)
    reconnect: Reconnect = field(init=False)
    poll: Poll = field(init=False)
    find_waits: WaitFinder = field(init=False)
    pace: Pace = field(init=False)
    _look_at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        """Build the parts; call no server yet."""
        self.record = BatchRows(self.at.engine)
        self.reconnect = Reconnect(self.at, self.progress.notify, self.stop)
        self.poll = Poll(self.record, self.batch.id)
        self.find_waits = WaitFinder(self.at.redis, self.at.keys)
        now = time.monotonic()
        self.pace = Pace(
            self.batch.lines, pool_finder(self.at.catalog), now, self.output.written_usd
        )
        self._look_at = now + LOOK_EVERY_S
        self.poll.seen.update(self.written)
        self.failed = sum(1 for answered in self.written.values() if not answered)

    def submit_and_follow(self) -> bool:
        """Run until every line of the input has a line of output; return False if stopped."""
        on_record = self.reconnect(lambda: self.record.lines_on_record(self.batch.id))
        lines = read(self.input_path, self.batch.defaults, self.batch.input_sha256)
        queueing = BatchEnqueue(
            self.at, self.reconnect, self.batch.id, lines, on_record, self.written
        )
        self._stop_if_cancelled(queueing)
        waiting = len(on_record - self.written.keys())
        poll_at = check_at = 0.0
        self._show()
        while not self.stop():
            if not queueing.done and waiting < self.max_in_flight:
                before = len(on_record)
                self._write_bad(queueing.enqueue_some(self.max_in_flight - waiting))
                waiting += len(on_record) - before
                if queueing.done:
                    mark_submitted(self.record, self.reconnect, self.batch, on_record)
            now = time.monotonic()
            if now >= poll_at:
                poll_at = now + POLL_EVERY_S
                waiting -= self.collect()
                self._show()
            if queueing.done and waiting <= 0:
                self.output.sync()
                return True
            if now >= check_at:
                check_at = now + CHECK_EVERY_S
                self.check_workers(self.poll.quiet_s if waiting else 0.0)
                self._stop_if_cancelled(queueing)
                self._look()
            if queueing.done or waiting >= self.max_in_flight:
                time.sleep(max(0.0, poll_at - time.monotonic()))
        return False

    def follow(self) -> bool:
        """Wait until every job of the batch has a line of output; return False if stopped."""
        check_at = 0.0
        self._show()
        while not self.stop():
            self.collect()
            if not self.reconnect(lambda: self.record.open_jobs(self.batch.id)):
                self.collect()
                return True
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + CHECK_EVERY_S
                self.check_workers(self.poll.quiet_s)
                self._look()
                self._show()
            time.sleep(5 * POLL_EVERY_S)
        return False

    def collect(self) -> int:
        """Write the results of jobs that ended since the last call; return their number."""
        ended = self.reconnect(self.poll)
        for first in range(0, len(ended), _CHUNK_LINES):
            chunk = ended[first : first + _CHUNK_LINES]
            self._write(self.reconnect(partial(self.record.results, self.batch.id, chunk)))
        return len(ended)

    def write_refused(self) -> None:
        """Write an error line for each line of the input that never became a job."""
        on_record = self.record.lines_on_record(self.batch.id)
        submitter = submitter_for(self.at)
        for line in read(self.input_path, self.batch.defaults, self.batch.input_sha256):
            if line.place in on_record or line.place in self.written:
                continue
            fault = line
            if not isinstance(line, BadLine):
                job = prepare_line(submitter, self.batch.id, line)
                message = f"line {line.number}: was refused when the batch was submitted"
                refused = BadLine(
                    line.number, line.custom_id, "invalid_request", message, line.sample
                )
                fault = job if isinstance(job, BadLine) else refused
            if isinstance(fault, BadLine):
                self._write_bad([fault])

    def _stop_if_cancelled(self, queueing: BatchEnqueue) -> None:
        """If the batch is cancelled, queue no further line and cancel its open jobs."""
        if self.reconnect(lambda: self.record.is_cancelled(self.batch.id)):
            queueing.cancelled = True
            self.reconnect(lambda: cancel_open(self.at, self.batch.id))

    def _write(self, ended: Iterable[EndedLine]) -> None:
        lines, answered, results = [], {}, []
        for job in ended:
            custom_id = job.custom_id or f"line-{job.line}"
            result = job.result or _expired(job)
            lines.append(output_line(job.line, self.batch.id, custom_id, result, job.asked))
            answered[job.line] = result["status"] == "succeeded"
            results.append(result)
        self.output.append(lines)
        self.pace.add(time.monotonic(), results)
        self.written |= answered
        self.failed += sum(1 for is_answer in answered.values() if not is_answer)
        self._show()

    def _write_bad(self, bad: list[BadLine]) -> None:
        if not bad:
            return
        self.output.append(
            [bad_line(b.place, self.batch.id, b.custom_id, b.code, b.message) for b in bad]
        )
        self.output.bad_example = self.output.bad_example or bad[0].message
        self.written |= dict.fromkeys((line.place for line in bad), False)
        self.failed += len(bad)
        self._show()

    def _look(self) -> None:
        """Show how many jobs run and what the others wait for, if it is time to look.

        That they wait for their turn is not shown.
        """
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self.pace.running = self.reconnect(lambda: self.record.running_jobs(self.batch.id))
        found = self.reconnect(lambda: wait_of(self.record, self.batch.id, self.find_waits))
        is_plain = found is None or found.waiting_for.kind == "turn"
        self.progress.waits_for(None if found is None or is_plain else found.waiting_for)

    def _show(self) -> None:
        done = len(self.written)
        figures = self.pace.figures(time.monotonic(), done=done, failed=self.failed)
        self.progress.show(figures)
        self.progress.advance(done=done, failed=self.failed)


def queue_all(
    at: Installation,
    batch: Batch,
    input_path: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> int:
    """Queue every good line of the input until `stop`; return how many lines were bad."""
    record, reconnect = BatchRows(at.engine), Reconnect(at, progress.notify, stop)
    on_record = reconnect(lambda: record.lines_on_record(batch.id))
    lines = read(input_path, batch.defaults, batch.input_sha256)
    queueing = BatchEnqueue(at, reconnect, batch.id, lines, on_record, ())
    bad = 0
    while not queueing.done and not stop():
        queueing.cancelled = reconnect(lambda: record.is_cancelled(batch.id))
        for line in queueing.enqueue_some(_CHUNK_LINES):
            bad += 1
            progress.notify(line.message)
        progress.advance(done=len(on_record) + bad, failed=bad)
    if queueing.done:
        mark_submitted(record, reconnect, batch, on_record)
    return bad


def mark_submitted(
    record: BatchRows, reconnect: Reconnect, batch: Batch, on_record: set[int]
) -> None:
    """Record that all lines were read; lines without a job count as bad."""
    reconnect(lambda: record.mark_submitted(batch.id, batch.lines - len(on_record)))


def cancel_open(at: Installation, batch_id: str) -> tuple[int, int]:
    """Cancel the batch's open jobs; return how many have ended by this and how many still run."""
    ids = BatchRows(at.engine).open_jobs(batch_id)
    ttl_s = at.settings.result_ttl_s
    became = cancel.cancel(at.engine, at.redis, at.keys, ids, result_ttl_s=ttl_s)
    return len(became.ended), len(became.running)


def _expired(job: EndedLine) -> dict[str, object]:
    message = f"the job {job.status}, but its answer was deleted (HEADGATE_KEEP_DAYS)"
    error = {"code": "internal", "message": message, "retryable": False}
    return {"id": job.job_id, "status": "failed", "model": None, "error": error}
