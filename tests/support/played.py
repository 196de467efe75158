"""Settings for the tests of the producer, and a played worker, which asks no model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert, select, update

from headgate.producer.installation import Installation
from headgate.shared.broker.results import celery_record
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.rows import audit_row
from headgate.shared.database.tables import audit, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.result import Result, Usage
from headgate.shared.settings import Settings


def settings_for(redis_url: str, database_url: str, home: Path, **others: Any) -> Settings:
    """Return settings that name real servers; make the tables of the database."""
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    engine.dispose()
    return Settings(redis_url=redis_url, database_url=database_url, home=home, **others)


class PlayedWorker:
    """Writes what a worker writes, in its order: commit, then store and publish."""

    def __init__(self, at: Installation) -> None:
        self.at = at

    def start(self, job_id: str, status: str = "running", **values: Any) -> Envelope:
        """Claim the job, as a worker does."""
        with self.at.engine.begin() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(status=status, fence=jobs.c.fence + 1, started_at_ms=now_ms(), **values)
            )
        return self.envelope(job_id)

    def envelope(self, job_id: str) -> Envelope:
        """Return the envelope from the job's row."""
        with self.at.engine.connect() as connection:
            encoded = connection.scalar(select(jobs.c.envelope).where(jobs.c.id == job_id))
        return Envelope.decode(orjson.loads(str(encoded)))

    def end(self, job_id: str, *, publish: bool = True, **fields: Any) -> Result:
        """End the job with a result of these fields; publish it unless `publish` is False."""
        envelope, at_ms = self.envelope(job_id), now_ms()
        fields = {"status": "succeeded", "content": f"answer to {job_id}", **fields}
        result = Result(
            id=job_id,
            model=envelope.model,
            model_used=envelope.model,
            usage=Usage(input_tokens=12, output_tokens=34),
            cost_usd="0.0000222",
            attempts=1,
            finished_at=rfc3339(at_ms),
            metadata=envelope.request.metadata,
            **fields,
        )
        text = orjson.dumps(result.as_json()).decode()
        with self.at.engine.begin() as connection:
            connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id)
                .values(status=result.status, result=text, finished_at_ms=at_ms)
            )
            line = audit_row(envelope, result, cost_pico_usd=22_200_000, finished_at_ms=at_ms)
            connection.execute(insert(audit), [line])
        if publish:
            record, key = celery_record(result), self.at.keys.result(job_id)
            with self.at.redis.pipeline() as pipe:
                pipe.set(key, record, ex=self.at.settings.result_ttl_s)
                pipe.publish(key, record)
                pipe.execute()
        return result


def row_of(at: Installation, job_id: str) -> Any:
    """Return the job's row, or None."""
    with at.engine.connect() as connection:
        return connection.execute(select(jobs).where(jobs.c.id == job_id)).first()


def ids_of(at: Installation) -> list[str]:
    """Return the ids of all rows, the oldest first."""
    with at.engine.connect() as connection:
        return list(connection.scalars(select(jobs.c.id).order_by(jobs.c.id)))


@contextmanager
def locked(at: Installation) -> Iterator[None]:
    """Keep everybody else from writing to the database during the block."""
    with at.engine.begin():
        yield
