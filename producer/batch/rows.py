"""What the database knows of batches: the truth from which a run goes on after any crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Engine, Row, Select, func, insert, select, update

from headgate.producer.batch.input import InputSummary
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import batches, jobs
from headgate.shared.errors import HeadgateError
from headgate.shared.job.ids import new_id, now_ms


class UnknownBatch(HeadgateError):
    """No batch of this id is on record."""

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"no batch {batch_id!r} on record; `headgate batch list` shows them")
        self.batch_id = batch_id


@dataclass(frozen=True, slots=True)
class Batch:
    """A file of prompts that was submitted as one."""

    id: str
    input_path: str
    input_sha256: str
    output_path: str | None
    defaults: dict[str, Any]
    lines: int
    bad_lines: int
    created_at_ms: int
    submitted_at_ms: int | None
    cancelled_at_ms: int | None


@dataclass(frozen=True, slots=True)
class EndedLine:
    """A job of a batch that has ended; `result` is None once it has expired."""

    line: int
    job_id: str
    custom_id: str | None
    status: str
    result: dict[str, Any] | None


class BatchRows:
    """Reads and writes the rows of batches, and reads those of their jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, survey: InputSummary, output_path: str | None, defaults: dict[str, Any]
    ) -> Batch:
        """A new batch is on record, with none of its lines queued yet."""
        batch = Batch(
            id=f"batch_{new_id()}",
            input_path=str(survey.path.absolute()).encode("utf-8", "backslashreplace").decode(),
            input_sha256=survey.sha256,
            output_path=output_path,
            defaults=defaults,
            lines=survey.lines,
            bad_lines=0,
            created_at_ms=now_ms(),
            submitted_at_ms=None,
            cancelled_at_ms=None,
        )
        row = {name: getattr(batch, name) for name in Batch.__dataclass_fields__}
        with writing(self._engine) as connection:
            connection.execute(
                insert(batches).values({**row, "defaults": orjson.dumps(defaults).decode()})
            )
        return batch

    def get(self, batch_id: str) -> Batch:
        """The batch; raises UnknownBatch."""
        for row in self._rows(select(batches).where(batches.c.id == batch_id)):
            return _batch(row)
        raise UnknownBatch(batch_id)

    def last_with_output(self, output_path: str) -> Batch | None:
        """The newest batch that wrote to this file, if any did."""
        query = select(batches).where(batches.c.output_path == output_path)
        for row in self._rows(query.order_by(batches.c.created_at_ms.desc()).limit(1)):
            return _batch(row)
        return None

    def latest(self, limit: int) -> list[Batch]:
        """The newest batches, newest first."""
        query = select(batches).order_by(batches.c.created_at_ms.desc()).limit(limit)
        return [_batch(row) for row in self._rows(query)]

    def mark_submitted(self, batch_id: str, bad_lines: int) -> None:
        """All lines of the batch have been read: good ones are queued, bad ones counted."""
        self._change(batch_id, bad_lines=bad_lines, submitted_at_ms=now_ms())

    def mark_cancelled(self, batch_id: str) -> None:
        """No further line of the batch will be queued by anyone."""
        self._change(batch_id, cancelled_at_ms=now_ms())

    def is_cancelled(self, batch_id: str) -> bool:
        """Whether the batch has been cancelled."""
        return self.get(batch_id).cancelled_at_ms is not None

    def lines_on_record(self, batch_id: str) -> set[int]:
        """The lines that have a job."""
        query = select(jobs.c.batch_line).where(jobs.c.batch_id == batch_id)
        return {row[0] for row in self._rows(query)}

    def open_jobs(self, batch_id: str) -> list[str]:
        """The ids of the batch's jobs that have not ended."""
        ours = (jobs.c.batch_id == batch_id, jobs.c.finished_at_ms.is_(None))
        query = select(jobs.c.id).where(*ours).order_by(jobs.c.batch_line)
        return [row[0] for row in self._rows(query)]

    def ended_lines(self, batch_id: str, since_ms: int = 0) -> list[tuple[int, int]]:
        """Line and end (Unix ms) of each job that ended at `since_ms` or later, oldest first."""
        query = (
            select(jobs.c.batch_line, jobs.c.finished_at_ms)
            .where(jobs.c.batch_id == batch_id, jobs.c.finished_at_ms >= since_ms)
            .order_by(jobs.c.finished_at_ms)
        )
        return [(row[0], row[1]) for row in self._rows(query)]

    def results(self, batch_id: str, lines: list[int]) -> list[EndedLine]:
        """The ended jobs of these lines, in this order; ask for some hundreds at once."""
        columns = (jobs.c.batch_line, jobs.c.id, jobs.c.custom_id, jobs.c.status, jobs.c.result)
        query = select(*columns).where(jobs.c.batch_id == batch_id, jobs.c.batch_line.in_(lines))
        found = {}
        for line, job_id, custom_id, status, written in self._rows(query):
            result = orjson.loads(written) if written else None
            found[line] = EndedLine(line, job_id, custom_id, status, result)
        return [found[line] for line in lines]

    def counts(self, batch_id: str) -> dict[str, int]:
        """How many of the batch's jobs are in which status."""
        query = (
            select(jobs.c.status, func.count())
            .where(jobs.c.batch_id == batch_id)
            .group_by(jobs.c.status)
        )
        return {row[0]: int(row[1]) for row in self._rows(query)}

    def _rows(self, query: Select[*tuple[Any, ...]]) -> list[Row[*tuple[Any, ...]]]:
        with reading(self._engine) as connection:
            return list(connection.execute(query))

    def _change(self, batch_id: str, **values: Any) -> None:
        with writing(self._engine) as connection:
            connection.execute(update(batches).where(batches.c.id == batch_id).values(values))


def _batch(row: Row[*tuple[Any, ...]]) -> Batch:
    fields = dict(row._mapping)
    return Batch(**{**fields, "defaults": orjson.loads(fields["defaults"])})
