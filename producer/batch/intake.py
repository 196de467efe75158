"""From a batch's input to queued jobs, a chunk at a time."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial

from producer import admit
from producer.batch.lines import BadLine, Line
from producer.batch.patience import Patience
from producer.errors import SubmitInterrupted
from producer.installation import Installation
from producer.results import known
from producer.submit import Prepared, enqueue
from shared import queues
from shared.envelope import new_id
from shared.errors import InvalidRequest

CHUNK_LINES = 500
CHUNK_BYTES = 8 * 1024 * 1024


class Intake:
    """Queues the lines of one batch; `feed` until `done`.

    `on_record`: lines that have a job. `written`: lines whose output stands already, good or bad.
    """

    def __init__(
        self,
        at: Installation,
        patience: Patience,
        batch_id: str,
        lines: Iterator[Line | BadLine],
        on_record: set[int],
        written: Container[int],
    ) -> None:
        self._at, self._patience, self._batch_id = at, patience, batch_id
        self._lines, self._written = lines, written
        self.on_record = on_record
        self.done = False
        self.cancelled = False

    def feed(self, room: int) -> list[BadLine]:
        """Up to `room` more lines are queued, at most one chunk; gives the bad ones among them."""
        bad: list[BadLine] = []
        prepared: list[Prepared] = []
        size = 0
        for _ in range(min(room, CHUNK_LINES)):
            line = next(self._lines, None)
            if line is None:
                self.done = True
                break
            if line.number in self.on_record or line.number in self._written:
                continue
            job = self._prepared(line)
            if isinstance(job, BadLine):
                bad.append(job)
                continue
            prepared.append(job)
            size += len(job.encoded)
            if size > CHUNK_BYTES:
                break
        prepared = self._let_in(prepared, bad)
        if prepared:
            self._queue(prepared)
        return bad

    def _let_in(self, prepared: list[Prepared], bad: list[BadLine]) -> list[Prepared]:
        """Those which no limit of their callers refuses; the others are added to `bad`."""
        asking = {place: job for place, job in enumerate(prepared) if admit.asks(job)}
        if not asking:
            return prepared
        ask = partial(admit.refusals, self._at, asking, together=False, call=new_id())
        refused = self._patience(ask)
        for place, refusal in refused.items():
            envelope = prepared[place][0]
            number, custom_id = envelope.batch_line or 0, envelope.custom_id or ""
            message = f"line {number}: {refusal}"
            bad.append(BadLine(number, custom_id, refusal.code, message))
        return [job for place, job in enumerate(prepared) if place not in refused]

    def _prepared(self, line: Line | BadLine) -> Prepared | BadLine:
        if isinstance(line, BadLine):
            return line
        if self.cancelled:
            message = f"line {line.number}: the batch was cancelled before this line was queued"
            return BadLine(line.number, line.custom_id, "cancelled", message)
        # A tier may be looked up in the database.
        return self._patience(partial(prepared_line, self._at, self._batch_id, line))

    def _queue(self, prepared: list[Prepared]) -> None:
        """Each job has its row and its message, once, also when a server is lost on the way."""
        unsure = False

        def put() -> None:
            nonlocal unsure
            missing = prepared
            if unsure:
                found = known(self._at.engine, (job.envelope.id for job in prepared))
                missing = [job for job in prepared if job.envelope.id not in found]
                there = [job for job in prepared if job.envelope.id in found]
                queues.send(self._at.redis, self._at.keys, there)
            try:
                enqueue(self._at.engine, self._at.redis, self._at.keys, missing)
            except SubmitInterrupted:
                unsure = True
                raise

        self._patience(put)
        self.on_record.update(job.envelope.batch_line or 0 for job in prepared)


def prepared_line(at: Installation, batch_id: str, line: Line) -> Prepared | BadLine:
    """The line as a job with a fresh id, or its fault."""
    try:
        return at.submitter.prepare(
            line.fields, batch_id=batch_id, batch_line=line.number, custom_id=line.custom_id
        )
    except InvalidRequest as error:
        message = f"line {line.number}: {error}"
        return BadLine(line.number, line.custom_id, error.code, message)
