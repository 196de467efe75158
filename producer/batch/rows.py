"""Reads and writes the rows of batches; a run continues from these after a crash."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import Engine, Row, Select, func, insert, select, update

from headgate.producer.batch.input import InputSummary
from headgate.producer.results.open_jobs import OPEN_JOB_COLUMNS, open_jobs
from headgate.producer.waits.decide import OpenJob
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import audit, batches, jobs
from headgate.shared.database.webhooks import await_batch
from headgate.shared.errors import HeadgateError
from headgate.shared.job.encoding import loads
from headgate.shared.job.ids import new_id, now_ms
from headgate.shared.job.result_text import decode_fields


class UnknownBatch(HeadgateError):
    """There is no batch with this id. `pruned`: there was one, and its audit lines are left."""

    def __init__(self, batch_id: str, *, pruned: bool = False) -> None:
        text = f"there is no batch {batch_id!r}; run `headgate batch list`"
        if pruned:
            text = (
                f"batch {batch_id} was deleted (HEADGATE_KEEP_DAYS); for its cost run "
                f"`headgate usage --batch {batch_id}`"
            )
        super().__init__(text)
        self.batch_id = batch_id
        self.pruned = pruned


@dataclass(frozen=True, slots=True)
class Batch:
    """One submitted file of prompts."""

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
    """A job of a batch that has ended; `result` is None after it has expired.

    `line`: its place, as `headgate.producer.batch.samples` makes it of line and sample. `asked`:
    what a Response repeats of its request, if the job has that form.
    """

    line: int
    job_id: str
    custom_id: str | None
    status: str
    result: dict[str, Any] | None
    asked: dict[str, Any] | None = None


class BatchRows:
    """Reads and writes the rows of batches, and reads those of their jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, summary: InputSummary, output_path: str | None, defaults: dict[str, Any]
    ) -> Batch:
        """Insert a new batch, with none of its lines queued yet."""
        batch = Batch(
            id=f"batch_{new_id()}",
            input_path=str(summary.path.absolute()).encode("utf-8", "backslashreplace").decode(),
            input_sha256=summary.sha256,
            output_path=output_path,
            defaults=defaults,
            lines=summary.lines,
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
            tenant = defaults.get("tenant", "default")
            url = defaults.get("webhook_url")
            await_batch(connection, batch.id, tenant, url, batch.created_at_ms)
        return batch

    def get(self, batch_id: str) -> Batch:
        """Return the batch; raise UnknownBatch."""
        for row in self._rows(select(batches).where(batches.c.id == batch_id)):
            return _batch(row)
        lines = self._rows(select(audit.c.job_id).where(audit.c.batch_id == batch_id).limit(1))
        raise UnknownBatch(batch_id, pruned=bool(lines))

    def last_with_output(self, output_path: str) -> Batch | None:
        """Return the newest batch with this output file; None if there is none."""
        query = select(batches).where(batches.c.output_path == output_path)
        for row in self._rows(query.order_by(batches.c.created_at_ms.desc()).limit(1)):
            return _batch(row)
        return None

    def latest(self, limit: int) -> list[Batch]:
        """Return at most `limit` batches, the newest first."""
        query = select(batches).order_by(batches.c.created_at_ms.desc()).limit(limit)
        return [_batch(row) for row in self._rows(query)]

    def mark_submitted(self, batch_id: str, bad_lines: int) -> None:
        """Record that all lines were read: the good ones are queued, `bad_lines` are not."""
        self._change(batch_id, bad_lines=bad_lines, submitted_at_ms=now_ms())

    def mark_cancelled(self, batch_id: str) -> None:
        """Record that the batch is cancelled, so that no further line is queued."""
        self._change(batch_id, cancelled_at_ms=now_ms())

    def is_cancelled(self, batch_id: str) -> bool:
        """Return whether the batch is cancelled."""
        return self.get(batch_id).cancelled_at_ms is not None

    def lines_on_record(self, batch_id: str) -> set[int]:
        """Return the lines that have a job."""
        query = select(jobs.c.batch_line).where(jobs.c.batch_id == batch_id)
        return {row[0] for row in self._rows(query)}

    def open_jobs(self, batch_id: str) -> list[str]:
        """Return the ids of the batch's jobs that have not ended."""
        ours = (jobs.c.batch_id == batch_id, jobs.c.finished_at_ms.is_(None))
        query = select(jobs.c.id).where(*ours).order_by(jobs.c.batch_line)
        return [row[0] for row in self._rows(query)]

    def running_jobs(self, batch_id: str) -> int:
        """Return how many jobs of the batch run now."""
        ours = (jobs.c.batch_id == batch_id, jobs.c.finished_at_ms.is_(None))
        query = select(func.count()).where(*ours, jobs.c.status == "running")
        return int(self._rows(query)[0][0])

    def waiting_jobs(self, batch_id: str, limit: int) -> list[OpenJob]:
        """Return the waiting ones among some of the batch's jobs that have not ended."""
        ours = (jobs.c.batch_id == batch_id, jobs.c.finished_at_ms.is_(None))
        with reading(self._engine) as connection:
            rows = connection.execute(select(*OPEN_JOB_COLUMNS).where(*ours).limit(limit)).all()
            return open_jobs(connection, rows)

    def ended_lines(self, batch_id: str, since_ms: int = 0) -> list[tuple[int, int]]:
        """Return line and end (Unix ms) of each job that ended at `since_ms` or later, by end."""
        query = (
            select(jobs.c.batch_line, jobs.c.finished_at_ms)
            .where(jobs.c.batch_id == batch_id, jobs.c.finished_at_ms >= since_ms)
            .order_by(jobs.c.finished_at_ms)
        )
        return [(row[0], row[1]) for row in self._rows(query)]

    def results(self, batch_id: str, lines: list[int]) -> list[EndedLine]:
        """Return the ended jobs of these lines, in this order; pass some hundreds at a time."""
        columns = (jobs.c.batch_line, jobs.c.id, jobs.c.custom_id, jobs.c.status, jobs.c.result)
        query = select(*columns).where(jobs.c.batch_id == batch_id, jobs.c.batch_line.in_(lines))
        found = {}
        for line, job_id, custom_id, status, encoded in self._rows(query):
            result = decode_fields(encoded) if encoded else None
            found[line] = EndedLine(line, job_id, custom_id, status, result)
        forms = (one.line for one in found.values() if _is_of_responses(one.result))
        asked = self._asked(batch_id, list(forms))
        return [replace(found[line], asked=asked.get(line)) for line in lines]

    def _asked(self, batch_id: str, lines: list[int]) -> dict[int, dict[str, Any]]:
        """Return params and model of the requests of these lines, by line."""
        if not lines:
            return {}
        query = select(jobs.c.batch_line, jobs.c.model, jobs.c.envelope)
        query = query.where(jobs.c.batch_id == batch_id, jobs.c.batch_line.in_(lines))
        return {
            line: {"model": model, **loads(envelope)["request"].get("params", {})}
            for line, model, envelope in self._rows(query)
            if envelope is not None
        }

    def counts(self, batch_id: str) -> dict[str, int]:
        """Return how many of the batch's jobs have each status."""
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


def _is_of_responses(result: dict[str, Any] | None) -> bool:
    return result is not None and result.get("dialect") == "responses"


def _batch(row: Row[*tuple[Any, ...]]) -> Batch:
    fields = dict(row._mapping)
    return Batch(**{**fields, "defaults": orjson.loads(fields["defaults"])})
