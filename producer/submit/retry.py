"""Retry jobs that have failed: reopen them on record, then send their messages again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, select

from headgate.producer.admin.reopen import RETRIED, NotReopened, Reopened, reopen_ended
from headgate.producer.installation import Installation
from headgate.producer.moments import When, ms_of
from headgate.producer.submit.prepare import Submitter
from headgate.shared.broker import queues
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import audit, jobs
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.result import Status

JOBS_AT_ONCE = 200
"""Jobs of one transaction."""


@dataclass(slots=True)
class Retried:
    """What became of jobs that were to be retried.

    `queued`: those that run again. `refused`: by id, why a job stays as it is.
    """

    queued: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def retry(at: Installation, submitter: Submitter, ids: Sequence[str]) -> Retried:
    """Queue the jobs again under their ids, with new tries; return what became of each.

    Raises RedisError with nothing changed if Redis does not answer at the start. If it is lost
    later, maintenance sends the jobs that are on record as queued.
    """
    at.redis.zadd(at.keys.due(), {"": 0}, xx=True)  # it changes nothing, and a full Redis refuses
    done = Retried()
    for first in range(0, len(ids), JOBS_AT_ONCE):
        found = reopen_ended(at.engine, ids[first : first + JOBS_AT_ONCE], submitter.renewed)
        again = {job_id: one for job_id, one in found.items() if isinstance(one, Reopened)}
        _send(at, again)
        done.queued += again
        done.refused.update(
            (job_id, one.reason) for job_id, one in found.items() if isinstance(one, NotReopened)
        )
    return done


def _send(at: Installation, again: dict[str, Reopened]) -> None:
    if not again:
        return
    keys = at.keys
    with at.redis.pipeline(transaction=False) as calls:
        # Callers must wait for the new result, and see no piece of an answer that broke off.
        calls.delete(*(keys.result(job_id) for job_id in again))
        calls.delete(*(keys.deltas(job_id) for job_id in again))
        calls.zrem(keys.cancels(), *again)
        calls.execute()
    queues.send(at.redis, keys, again.values())


@dataclass(frozen=True, slots=True)
class RetryFilter:
    """Chooses ended jobs: of a batch, of a status, by the code of their error, by their end."""

    batch_id: str | None = None
    status: Status | None = None
    code: str | None = None
    since: When | None = None


def choose(engine: Engine, wanted: RetryFilter) -> dict[str, str]:
    """Return the ids of the chosen jobs that may be retried, the oldest first, with their codes.

    Raises InvalidRequest.
    """
    if wanted.status is not None and wanted.status not in RETRIED:
        raise InvalidRequest("status", wanted.status, f"use {' or '.join(RETRIED)}")
    statuses = RETRIED if wanted.status is None else (wanted.status,)
    query = select(jobs.c.id, audit.c.error_code).join(audit, audit.c.job_id == jobs.c.id)
    query = query.where(jobs.c.status.in_(statuses)).order_by(jobs.c.submitted_at_ms, jobs.c.id)
    if wanted.batch_id is not None:
        query = query.where(jobs.c.batch_id == wanted.batch_id)
    if wanted.code is not None:
        query = query.where(audit.c.error_code == wanted.code)
    if wanted.since is not None:
        query = query.where(jobs.c.finished_at_ms >= ms_of("since", wanted.since))
    with reading(engine) as connection:
        return {row.id: row.error_code or "internal" for row in connection.execute(query)}


def counted(codes: dict[str, str]) -> Iterator[str]:
    """Yield how many of the jobs have each code, the most frequent first: `30 timeout`."""
    for code, count in Counter(codes.values()).most_common():
        yield f"{count} {code}"
