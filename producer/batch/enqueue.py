"""Queues the lines of a batch, one chunk at a time."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from functools import partial

from headgate.producer.batch.input import BadLine, InputLine
from headgate.producer.batch.samples import line_and_sample
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
from headgate.shared.errors import ErrorCode, InvalidRequest, shown
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id

CHUNK_LINES = 500
CHUNK_BYTES = 8 * 1024 * 1024


@dataclass(slots=True)
class _Chunk:
    """The part of a batch that is queued at once; `line` is taken and not yet prepared."""

    lines_left: int
    line: InputLine | BadLine | None = None
    prepared: list[Prepared] = field(default_factory=list)
    size: int = 0


class BatchEnqueue:
    """Queues the lines of one batch: call `enqueue_some` until `done`.

    `on_record`: the places of jobs on record. `written`: those that have a line of output.
    """

    def __init__(
        self,
        at: Installation,
        reconnect: Reconnect,
        batch_id: str,
        lines: Iterator[InputLine | BadLine],
        on_record: set[int],
        written: Container[int],
    ) -> None:
        self._at, self._reconnect, self._batch_id = at, reconnect, batch_id
        self._lines, self._written = lines, written
        self._submitter = submitter_for(at)
        self.on_record = on_record
        self.done = False
        self.cancelled = False

    def enqueue_some(self, most: int) -> list[BadLine]:
        """Queue at most `most` further lines, and at most one chunk; return the bad lines."""
        bad: list[BadLine] = []
        chunk = _Chunk(min(most, CHUNK_LINES))
        # A tier may be looked up in the database.
        prepared = self._reconnect(partial(self._prepare_some, chunk, bad))
        prepared = self._admit(prepared, bad)
        if prepared:
            bad += self._enqueue(prepared)
        return bad

    def _admit(self, prepared: list[Prepared], bad: list[BadLine]) -> list[Prepared]:
        """Return the jobs that no limit of their callers refuses; add the others to `bad`."""
        asking = {place: job for place, job in enumerate(prepared) if admission.asks(job)}
        if not asking:
            return prepared
        ask = partial(admission.refusals, self._at, asking, together=False, call=new_id())
        refused = self._reconnect(ask)
        for place, refusal in refused.items():
            bad.append(_bad_line(prepared[place].envelope, refusal.code, str(refusal)))
        return [job for place, job in enumerate(prepared) if place not in refused]

    def _prepare_some(self, chunk: _Chunk, bad: list[BadLine]) -> list[Prepared]:
        """Prepare the lines of a chunk; call it again if a server is lost in between."""
        while chunk.lines_left and chunk.size <= CHUNK_BYTES:
            line = chunk.line = chunk.line or next(self._lines, None)
            if line is None:
                self.done = True
                break
            if line.place not in self.on_record and line.place not in self._written:
                job = self._prepare(line)
                if isinstance(job, BadLine):
                    bad.append(job)
                else:
                    chunk.prepared.append(job)
                    chunk.size += len(job.encoded)
            chunk.line = None
            chunk.lines_left -= 1
        return chunk.prepared

    def _prepare(self, line: InputLine | BadLine) -> Prepared | BadLine:
        if isinstance(line, BadLine):
            return line
        if self.cancelled:
            message = f"line {line.number}: the batch was cancelled before this line was queued"
            return BadLine(line.number, line.custom_id, "cancelled", message, line.sample)
        return prepare_line(self._submitter, self._batch_id, line)

    def _enqueue(self, prepared: list[Prepared]) -> list[BadLine]:
        """Write the row and the message of each job once, also if a server fails in between.

        Return the lines whose idempotency key belongs to a job outside this batch.
        """
        unsure = False

        def put() -> dict[str, KeyOwner]:
            nonlocal unsure
            missing = prepared
            if unsure:
                found = known(self._at.engine, (job.envelope.id for job in prepared))
                missing = [job for job in prepared if job.envelope.id not in found]
                present = [job for job in prepared if job.envelope.id in found]
                queues.send(self._at.redis, self._at.keys, present)
            try:
                at = self._at
                return enqueue(at.engine, at.redis, at.keys, missing, refuse=False)
            except SubmitInterrupted:
                unsure = True
                raise

        others = self._reconnect(put)
        queued = (job.envelope for job in prepared if job.envelope.id not in others)
        self.on_record.update(envelope.batch_line or 0 for envelope in queued)
        twice = (job.envelope for job in prepared if job.envelope.id in others)
        return [_key_taken(envelope, others[envelope.id]) for envelope in twice]


def _key_taken(envelope: Envelope, other: KeyOwner) -> BadLine:
    key = shown(envelope.request.idempotency_key)
    remedy = f"has this key already; get its answer with `headgate result {other.job_id}`"
    if not other.is_same:
        remedy = "has this key for a different request; use another key"
    fault = f"idempotency_key: {key}: job {other.job_id} {remedy}"
    return _bad_line(envelope, "invalid_request", fault)


def _bad_line(envelope: Envelope, code: ErrorCode, fault: str) -> BadLine:
    number, sample = line_and_sample(envelope.batch_line or 0)
    return BadLine(number, envelope.custom_id or "", code, f"line {number}: {fault}", sample)


def prepare_line(submitter: Submitter, batch_id: str, line: InputLine) -> Prepared | BadLine:
    """Prepare a job with a new id from the line; return a BadLine if the line is invalid."""
    try:
        return submitter.prepare(
            line.fields, batch_id=batch_id, batch_line=line.place, custom_id=line.custom_id,
            sample=line.sample,
        )  # fmt: skip
    except InvalidRequest as error:
        message = f"line {line.number}: {error}"
        return BadLine(line.number, line.custom_id, error.code, message, line.sample)
