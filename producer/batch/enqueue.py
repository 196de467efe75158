"""From a batch's input to queued jobs, a chunk at a time."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import partial

from headgate.producer.batch.input import BadLine, InputLine
from headgate.producer.errors import SubmitInterrupted
from headgate.producer.installation import Installation
from headgate.producer.reconnect import Reconnect
from headgate.producer.results.read import known
from headgate.producer.submit import admission
from headgate.producer.submit.enqueue import enqueue
from headgate.producer.submit.idempotency import KeyOwner
from headgate.producer.submit.prepare import Prepared, Submitter
from headgate.producer.submit.submit import submitter_for
from headgate.shared.broker import queues
from headgate.shared.errors import InvalidRequest, shown
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id

CHUNK_LINES = 500
CHUNK_BYTES = 8 * 1024 * 1024


class BatchEnqueue:
    """Queues the lines of one batch; `feed` until `done`.

    `on_record`: lines that have a job. `written`: lines whose output stands already, good or bad.
    """

    def __init__(
        self,
        at: Installation,
        patience: Reconnect,
        batch_id: str,
        lines: Iterator[InputLine | BadLine],
        on_record: set[int],
        written: Container[int],
    ) -> None:
        self._at, self._patience, self._batch_id = at, patience, batch_id
        self._lines, self._written = lines, written
        self._submitter = submitter_for(at)
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
            bad += self._queue(prepared)
        return bad

    def _let_in(self, prepared: list[Prepared], bad: list[BadLine]) -> list[Prepared]:
        """Those which no limit of their callers refuses; the others are added to `bad`."""
        asking = {place: job for place, job in enumerate(prepared) if admission.asks(job)}
        if not asking:
            return prepared
        ask = partial(admission.refusals, self._at, asking, together=False, call=new_id())
        refused = self._patience(ask)
        for place, refusal in refused.items():
            envelope = prepared[place][0]
            number, custom_id = envelope.batch_line or 0, envelope.custom_id or ""
            message = f"line {number}: {refusal}"
            bad.append(BadLine(number, custom_id, refusal.code, message))
        return [job for place, job in enumerate(prepared) if place not in refused]

    def _prepared(self, line: InputLine | BadLine) -> Prepared | BadLine:
        if isinstance(line, BadLine):
            return line
        if self.cancelled:
            message = f"line {line.number}: the batch was cancelled before this line was queued"
            return BadLine(line.number, line.custom_id, "cancelled", message)
        # A tier may be looked up in the database.
        return self._patience(partial(prepared_line, self._submitter, self._batch_id, line))

    def _queue(self, prepared: list[Prepared]) -> list[BadLine]:
        """Each job has its row and its message, once, also when a server is lost on the way.

        Gives the lines whose idempotency key another job has: that job is not one of this batch.
        """
        unsure = False

        def put() -> dict[str, KeyOwner]:
            nonlocal unsure
            missing = prepared
            if unsure:
                found = known(self._at.engine, (job.envelope.id for job in prepared))
                missing = [job for job in prepared if job.envelope.id not in found]
                there = [job for job in prepared if job.envelope.id in found]
                queues.send(self._at.redis, self._at.keys, there)
            try:
                at = self._at
                return enqueue(at.engine, at.redis, at.keys, missing, refuse=False)
            except SubmitInterrupted:
                unsure = True
                raise

        others = self._patience(put)
        queued = (job.envelope for job in prepared if job.envelope.id not in others)
        self.on_record.update(envelope.batch_line or 0 for envelope in queued)
        twice = (job.envelope for job in prepared if job.envelope.id in others)
        return [_known_before(envelope, others[envelope.id]) for envelope in twice]


def _known_before(envelope: Envelope, other: KeyOwner) -> BadLine:
    key = shown(envelope.request.idempotency_key)
    word = f"has this key already; `headgate result {other.job_id}` has its answer"
    if not other.is_same:
        word = "has this key, and its request is another one; give another key"
    number = envelope.batch_line or 0
    message = f"line {number}: idempotency_key: {key}: job {other.job_id} {word}"
    return BadLine(number, envelope.custom_id or "", "invalid_request", message)


def prepared_line(submitter: Submitter, batch_id: str, line: InputLine) -> Prepared | BadLine:
    """The line as a job with a fresh id, or its fault."""
    try:
        return submitter.prepare(
            line.fields, batch_id=batch_id, batch_line=line.number, custom_id=line.custom_id
        )
    except InvalidRequest as error:
        message = f"line {line.number}: {error}"
        return BadLine(line.number, line.custom_id, error.code, message)
