"""Continues a batch after its input was corrected: only the lines that have changed are asked.

A line is unchanged if it has the `custom_id` and the request of a job of the batch, wherever in the
file it stands by now. A line without a `custom_id` is known by its request. The jobs of the lines
as they were leave the batch: they are cancelled if they are open, and stay on record with what they
cost. Their lines of output are removed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, bindparam, select, update

from headgate.producer.batch.input import BadLine, InputLine, InputSummary, read
from headgate.producer.batch.output import Output
from headgate.producer.batch.rows import Batch, BatchRows
from headgate.producer.installation import Installation
from headgate.producer.results import cancel
from headgate.producer.submit.prepare import Submitter, request_digest
from headgate.producer.submit.submit import submitter_for
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import audit, batches, jobs
from headgate.shared.database.usage_rollup import unsum
from headgate.shared.errors import InvalidRequest, UnreadableMessage, WrongUse
from headgate.shared.job.encoding import loads
from headgate.shared.job.envelope import Envelope

STOPPED_WITHIN_S = 15.0
"""How long to wait for the workers to stop jobs of changed lines."""

ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class LineOnRecord:
    """A job of the batch; `digest` of its request is None if its prompt was deleted."""

    job_id: str
    place: int
    custom_id: str
    digest: str | None


@dataclass(frozen=True, slots=True)
class WantedLine:
    """A line (or sample) of the corrected input; `digest` is None for a bad line."""

    place: int
    custom_id: str
    digest: str | None
    has_own_id: bool = True


@dataclass(slots=True)
class Correction:
    """What a corrected input makes of a batch.

    `kept`: places of unchanged jobs. `moved`: unchanged jobs that stand elsewhere now, with their
    new places and ids. `aside`: jobs that leave the batch. `asked`: how many lines have no job.
    """

    kept: set[int] = field(default_factory=set)
    moved: dict[str, tuple[int, str]] = field(default_factory=dict)
    aside: list[str] = field(default_factory=list)
    asked: int = 0

    @property
    def unchanged(self) -> int:
        """How many lines keep their jobs."""
        return len(self.kept) + len(self.moved)


def compare(on_record: Iterable[LineOnRecord], wanted: Iterable[WantedLine]) -> Correction:
    """Return which jobs stay, move and leave."""
    known = {one.custom_id: one for one in on_record}
    found, rest = Correction(), []
    for line in wanted:
        job = known.get(line.custom_id)
        if job is None or not _is_same(job, line):
            rest.append(line)
            continue
        del known[job.custom_id]
        _keep(found, job, line)
    # Lines without an id of their own move when lines before them are added or removed.
    by_digest: dict[str, list[LineOnRecord]] = defaultdict(list)
    for job in known.values():
        if job.digest is not None and not job.place < 0:
            by_digest[job.digest].append(job)
    for line in rest:
        alike = by_digest.get(line.digest or "") if not line.has_own_id else None
        if alike:
            job = alike.pop(0)
            del known[job.custom_id]
            _keep(found, job, line)
        else:
            found.asked += line.digest is not None
    found.aside = [job.job_id for job in known.values()]
    return found


def _is_same(job: LineOnRecord, line: WantedLine) -> bool:
    if job.digest is None:  # without its prompt it cannot be compared; do not pay for it again
        return job.place == line.place and line.digest is not None
    return job.digest == line.digest


def _keep(found: Correction, job: LineOnRecord, line: WantedLine) -> None:
    if (job.place, job.custom_id) == (line.place, line.custom_id):
        found.kept.add(job.place)
    else:
        found.moved[job.job_id] = line.place, line.custom_id


def correct(
    at: Installation, batch: Batch, summary: InputSummary, output: Output
) -> tuple[Batch, dict[int, bool], Correction]:
    """Make the batch one of the corrected input; return it, its written lines, and the changes.

    Raises WrongUse if no line of the input is as it was: then it is the input of another batch.
    """
    submitter = submitter_for(at)
    found = compare(list(_on_record(at.engine, batch.id)), _wanted(submitter, batch, summary))
    if not found.unchanged:
        remedy = (
            f"no line of it is as in the input of batch {batch.id}, which wrote to this output; "
            "name another output, or replace this one with --overwrite"
        )
        raise WrongUse("input", str(summary.path), remedy)
    written = {
        place: answered for place, answered in output.read_written(batch.id).items()
        if place in found.kept
    }  # fmt: skip
    _stop(at, found.aside)
    # The output first: a line that is missing in it is written again from the record.
    output.keep_only(written)
    with writing(at.engine) as connection:
        _set_aside(connection, found.aside)
        _move(connection, found.moved)
        now = {"input_sha256": summary.sha256, "lines": summary.lines, "bad_lines": 0}
        changed = update(batches).where(batches.c.id == batch.id)
        connection.execute(changed.values(**now, submitted_at_ms=None))
    return BatchRows(at.engine).get(batch.id), written, found


def _on_record(engine: Engine, batch_id: str) -> Iterator[LineOnRecord]:
    columns = (jobs.c.id, jobs.c.batch_line, jobs.c.custom_id, jobs.c.envelope)
    query = select(*columns).where(jobs.c.batch_id == batch_id).order_by(jobs.c.batch_line)
    page = query.limit(ROWS_AT_ONCE)
    while True:
        with reading(engine) as connection:
            rows = connection.execute(page).all()
        for row in rows:
            yield LineOnRecord(row.id, row.batch_line, row.custom_id or "", _digest(row.envelope))
        if len(rows) < ROWS_AT_ONCE:
            return
        page = query.where(jobs.c.batch_line > rows[-1].batch_line).limit(ROWS_AT_ONCE)


def _digest(envelope: str | None) -> str | None:
    """Return the digest of the request on record; None if it was deleted or cannot be read."""
    try:
        return envelope and request_digest(Envelope.decode(loads(envelope)).request)
    except UnreadableMessage:
        return None


def _wanted(submitter: Submitter, batch: Batch, summary: InputSummary) -> Iterator[WantedLine]:
    for line in read(summary.path, batch.defaults, summary.sha256):
        yield WantedLine(
            line.place, line.custom_id, _digest_of(submitter, line),
            has_own_id=line.custom_id.partition("#")[0] != f"line-{line.number}",
        )  # fmt: skip


def _digest_of(submitter: Submitter, line: InputLine | BadLine) -> str | None:
    if isinstance(line, BadLine):
        return None
    try:
        return request_digest(submitter.requested(line.fields, sample=line.sample))
    except InvalidRequest:
        return None


def _stop(at: Installation, ids: Sequence[str]) -> None:
    """Cancel those of these jobs that are open; raise WrongUse if one does not stop in time."""
    open_ids = _open(at, ids)
    if not open_ids:
        return
    ttl_s = at.settings.result_ttl_s
    cancel.cancel(at.engine, at.redis, at.keys, open_ids, result_ttl_s=ttl_s)
    until = time.monotonic() + STOPPED_WITHIN_S
    while running := _open(at, open_ids):
        if time.monotonic() > until:
            remedy = "its line has changed and it is being stopped; run the command again soon"
            raise WrongUse("job", running[0], remedy)
        time.sleep(0.2)


def _open(at: Installation, ids: Sequence[str]) -> list[str]:
    found: list[str] = []
    with reading(at.engine) as connection:
        for chunk in _chunks(ids):
            is_open = jobs.c.id.in_(chunk), jobs.c.finished_at_ms.is_(None)
            found += connection.scalars(select(jobs.c.id).where(*is_open))
    return found


def _set_aside(connection: Connection, ids: Sequence[str]) -> None:
    for chunk in _chunks(ids):
        leave = update(jobs).where(jobs.c.id.in_(chunk))
        connection.execute(leave.values(batch_id=None, batch_line=None))
        ended = select(audit.c.finished_at_ms).where(audit.c.job_id.in_(chunk))
        for ended_at_ms in connection.scalars(ended).all():
            unsum(connection, ended_at_ms)
        connection.execute(update(audit).where(audit.c.job_id.in_(chunk)).values(batch_id=None))


def _move(connection: Connection, moved: dict[str, tuple[int, str]]) -> None:
    """Give jobs their new places; first none, because two may change places."""
    for chunk in _chunks(list(moved)):
        connection.execute(update(jobs).where(jobs.c.id.in_(chunk)).values(batch_line=None))
    if moved:
        place = update(jobs).where(jobs.c.id == bindparam("job"))
        connection.execute(
            place.values(batch_line=bindparam("place"), custom_id=bindparam("own_id")),
            [{"job": job_id, "place": p, "own_id": c} for job_id, (p, c) in moved.items()],
        )


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(ids), ROWS_AT_ONCE):
        yield ids[first : first + ROWS_AT_ONCE]
