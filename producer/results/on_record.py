"""Reads a job together with its request, and makes its prompt and answer go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import redis
from sqlalchemy import Engine, select

from headgate.producer.errors import UnknownJob
from headgate.producer.results.open_jobs import open_jobs
from headgate.producer.results.read import STATUS_COLUMNS, waiting_fields, without_answer
from headgate.producer.waits.find import FindWaits, no_waits
from headgate.shared.broker.keys import Keys
from headgate.shared.database import shed as shedding
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import jobs
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.encoding import loads
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import Request
from headgate.shared.job.result import ENDED, Result
from headgate.shared.job.result_text import decode_result


class JobOnRecord(NamedTuple):
    """A job as it is now. `is_unstored`: its caller wants nothing of it to be stored.

    `size`: characters of its request and its result, as they are on record.
    """

    request: Request
    result: Result
    is_unstored: bool
    size: int


def read_job(engine: Engine, job_id: str, find_waits: FindWaits = no_waits) -> JobOnRecord:
    """Return the job with its request; raise UnknownJob if it has no request any more."""
    columns = (*STATUS_COLUMNS, jobs.c.result, jobs.c.envelope)
    unstored = shedding.is_unstored(jobs.c.id).label("unstored")
    with reading(engine) as connection:
        row = connection.execute(select(*columns, unstored).where(jobs.c.id == job_id)).first()
        waiting = open_jobs(connection, [row]) if row is not None else []
    if row is None or row.envelope is None or (row.status in ENDED and row.result is None):
        raise UnknownJob(job_id)
    try:
        request = Envelope.decode(loads(row.envelope)).request
    except UnreadableMessage:
        raise UnknownJob(job_id) from None
    size = len(row.envelope) + len(row.result or "")
    if row.status in ENDED:
        return JobOnRecord(request, decode_result(row.result), bool(row.unstored), size)
    result = without_answer(row, request.metadata)
    wait = find_waits(waiting).get(job_id) if waiting else None
    if wait is not None:
        result = replace(result, **waiting_fields(row, wait))
    return JobOnRecord(request, result, bool(row.unstored), size)


def shed(engine: Engine, client: redis.Redis, keys: Keys, ids: Sequence[str]) -> None:
    """Make prompts and answers of these jobs go; of those that run still, once they have ended.

    Raises RedisError and DBAPIError; it is safe to repeat.
    """
    with writing(engine) as connection:
        ended = shedding.shed(connection, ids)
        for job_id in set(ids) - set(ended):
            shedding.mark_unstored(connection, job_id)
    if ended:
        client.unlink(*(name for one in ended for name in (keys.result(one), keys.deltas(one))))
