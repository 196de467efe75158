"""Put prepared jobs on record, then their messages on the queues."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import redis
from sqlalchemy import Engine, insert
from sqlalchemy.exc import DBAPIError

from headgate.producer.errors import IdempotencyConflict, SubmitInterrupted
from headgate.producer.submit.idempotency import (
    IdempotencyKey,
    KeyOwner,
    keyed,
    refuse_conflicts,
    take,
    unsent,
)
from headgate.producer.submit.prepare import Prepared
from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import message, queue_of, send
from headgate.shared.database.engine import passes, writing
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import jobs
from headgate.shared.job.envelope import Envelope

ROWS_PER_COMMIT = 500
"""Rows of one transaction; larger ones make the workers' commits wait too long."""


Written = tuple[dict[str, Any], str, bytes, IdempotencyKey | None]
"""A job's row, its queue, its message, and its caller's key if it has one."""


def enqueue(
    engine: Engine,
    client: redis.Redis,
    keys: Keys,
    prepared: Iterable[Prepared],
    *,
    refuse: bool = True,
) -> dict[str, KeyOwner]:
    """Every job has its row and, after that, its message; see `put`.

    Raises SubmitInterrupted when a server is lost after the first row. A row without a message is
    sent by the workers' sweep.
    """
    ready = [written(*job) for job in prepared]
    return put(engine, client, keys, ready, refuse=refuse)


def written(envelope: Envelope, encoded: bytes, ticket: str) -> Written:
    """The job as it is put on record and on the broker.

    Plain dicts and tuples of plain values, which Python's collector does not track: with 20,000
    envelopes in memory it would take 40 % of the time.
    """
    row, claim = job_row(envelope, encoded), None
    if envelope.body_sha256:
        claim = keyed(envelope)
    return row, queue_of(envelope), message(envelope, encoded, ticket), claim


def put(
    engine: Engine,
    client: redis.Redis,
    keys: Keys,
    ready: Sequence[Written],
    *,
    refuse: bool = True,
) -> dict[str, KeyOwner]:
    """Every job is on record and queued, in transactions of 500; raises as `enqueue` does.

    Gives, by the ids of those that are not, the jobs that have their idempotency keys; with
    `refuse` it raises IdempotencyConflict if one of these asks for something else.
    A Redis that does not answer costs no job: it is asked before anything is written, so that a
    caller who hears RedisError may submit again and pays once.
    """
    if ready:
        client.ping()
    known: dict[str, KeyOwner] = {}
    done: list[str] = []
    for first in range(0, len(ready), ROWS_PER_COMMIT):
        chunk = ready[first : first + ROWS_PER_COMMIT]
        before, waiting = _record(engine, chunk, done, refuse)
        known.update(before)
        by_queue: dict[str, list[tuple[str, bytes]]] = {}
        for row, queue, text, _ in chunk:
            if row["id"] not in before:
                by_queue.setdefault(queue, []).append((row["id"], text))
        done += (before[i].job_id if i in before else i for i in _ids(chunk))
        try:
            for queue, pairs in by_queue.items():
                script.run(client, broker_jobs.send(keys, queue, pairs))
            if waiting:
                send(client, keys, waiting)
        except redis.RedisError as error:
            raise SubmitInterrupted("Redis", str(error), done) from error
    return known


def _record(
    engine: Engine, chunk: Sequence[Written], done: list[str], refuse: bool
) -> tuple[dict[str, KeyOwner], list[tuple[Envelope, bytes]]]:
    """The chunk's rows are written, but for jobs that were there before: those, and of them the
    ones whose message may be missing."""
    rows = [row for row, *_ in chunk]
    claims = [claim for *_, claim in chunk if claim is not None]
    known: dict[str, KeyOwner] = {}
    waiting: list[tuple[Envelope, bytes]] = []
    committing = False
    try:
        with writing(engine) as connection:
            if claims:
                known = take(connection, claims)
                if refuse:
                    refuse_conflicts(claims, known)
                new = {row["id"] for row in rows}
                others = {other.job_id for other in known.values() if other.is_same} - new
                waiting = unsent(connection, others) if others else []
                rows = [row for row in rows if row["id"] not in known]
            if rows:
                connection.execute(insert(jobs), rows)
            committing = True
    except DBAPIError as error:
        if passes(error) and (committing or done):
            unsure = [row["id"] for row in rows] if committing else []
            raise SubmitInterrupted("the database", str(error.orig), done, unsure) from error
        raise
    except IdempotencyConflict as conflict:
        if done:
            raise IdempotencyConflict(conflict.key, conflict.job_id, done) from None
        raise
    return known, waiting


def _ids(ready: Iterable[Written]) -> list[str]:
    return [row["id"] for row, *_ in ready]
