"""Sheds jobs: their prompts and answers go, and their rows, money and audit lines stay.

A job with the pair `UNSTORED` in its metadata is to be shed once it has ended: its caller wants
nothing to be stored, or has deleted it. Its idempotency key stays taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, exists, select, update

from headgate.shared.database.job_metadata import add_metadata
from headgate.shared.database.tables import job_metadata, jobs
from headgate.shared.job.result import ENDED

UNSTORED = ("response.store", "false")
"""Key and value of the metadata of a job that is to be shed."""


def is_unstored(job_id: str | ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition for a job that is to be shed; a shed one has no pair any more."""
    key, value = UNSTORED
    columns = job_metadata.c
    return exists().where(columns.key == key, columns.value == value, columns.job_id == job_id)


def mark_unstored(connection: Connection, job_id: str) -> None:
    """Have this job shed once it has ended."""
    add_metadata(connection, [(job_id, (UNSTORED,))])


def to_shed(connection: Connection, before_ms: int, most: int) -> list[str]:
    """Return jobs to shed that ended before this Unix time, in ms."""
    key, value = UNSTORED
    columns = job_metadata.c
    query = (
        select(jobs.c.id)
        .join(job_metadata, columns.job_id == jobs.c.id)
        .where(columns.key == key, columns.value == value)
        .where(jobs.c.status.in_(ENDED), jobs.c.finished_at_ms < before_ms)
        .limit(most)
    )
    return list(connection.scalars(query))


def shed(connection: Connection, ids: Sequence[str]) -> list[str]:
    """Delete prompts and answers of those of the jobs that have ended; return their ids."""
    ended = select(jobs.c.id).where(jobs.c.id.in_(ids), jobs.c.status.in_(ENDED))
    found = sorted(connection.scalars(ended.with_for_update()))
    if found:
        here = jobs.c.id.in_(found)
        connection.execute(update(jobs).where(here).values(envelope=None, result=None))
        connection.execute(delete(job_metadata).where(job_metadata.c.job_id.in_(found)))
    return found
