"""Put prepared jobs on record, then their messages on the queues."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import redis
from sqlalchemy import Connection, Engine, delete, insert, tuple_
from sqlalchemy.exc import DBAPIError

from headgate.producer.errors import IdempotencyConflict, SubmitInterrupted
from headgate.producer.submit.idempotency import (
    IdempotencyKey,
    KeyOwner,
    key_of,
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
from headgate.shared.database.job_metadata import Pairs, add_metadata, pairs_of
from headgate.shared.database.many_rows import write_all
from headgate.shared.database.rows import job_row
from headgate.shared.database.tables import idempotency, job_metadata, jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.servers.redis_check import refuses_for_now

ROWS_PER_COMMIT = 500
"""Rows of one transaction; larger ones make the workers' commits wait too long."""

QueueEntry = tuple[dict[str, Any], str, bytes, Pairs, IdempotencyKey | None]
"""A job's row, its queue, its message, its metadata, and its idempotency key if it has one.

Plain dicts and tuples of plain values, which Python's collector does not track: with 20,000
envelopes in memory it would take 40 % of the time.
"""


_ADD = insert(jobs)


class Recorded(NamedTuple):
    """What a transaction found of jobs whose keys were taken before.

    `owners`: by the ids of jobs that were not written, the jobs that have their keys. `unsent`:
    jobs among the owners whose message may never have been sent.
    """

    owners: dict[str, KeyOwner]
    unsent: list[tuple[Envelope, bytes]]


def enqueue(
    engine: Engine,
    client: redis.Redis,
    keys: Keys,
    prepared: Iterable[Prepared],
    *,
    refuse: bool = True,
) -> dict[str, KeyOwner]:
    """Write the row of every job and, after that, send its message; see `enqueue_entries`."""
    entries = [entry_of(*job) for job in prepared]
    return enqueue_entries(engine, client, keys, entries, refuse=refuse)


def entry_of(envelope: Envelope, encoded: bytes, ticket: str) -> QueueEntry:
    """Return the job as it is written to the database and sent to the broker."""
    key = key_of(envelope) if envelope.body_sha256 else None
    text = message(envelope, encoded, ticket)
    metadata = envelope.request.metadata
    pairs = pairs_of(metadata) if metadata else ()
    return job_row(envelope, encoded), queue_of(envelope), text, pairs, key


def enqueue_entries(
    engine: Engine, client: redis.Redis, keys: Keys, entries: Sequence[QueueEntry], *,
    refuse: bool = True, is_checked: bool = False,
) -> dict[str, KeyOwner]:  # fmt: skip
    """Write and send the jobs in transactions of 500 rows.

    Returns, by the ids of jobs that were not written, the jobs that have their idempotency keys.
    With `refuse`, raises IdempotencyConflict if one of these asks for something else.

    Raises RedisError with nothing on record if Redis does not answer at the start or takes no
    message, so that the caller may submit again and pays once. Raises SubmitInterrupted if a server
    is lost after the first row. Workers send the messages of rows that have none (maintenance), but
    the rows of messages that Redis refused are deleted: it may be full for long. `is_checked`: the
    caller has just asked whether Redis takes writes.
    """
    if entries and not is_checked:
        # It changes nothing, and a Redis that is full or read-only refuses it.
        client.zadd(keys.due(), {"": 0}, xx=True)
    owners: dict[str, KeyOwner] = {}
    done: list[str] = []
    for first in range(0, len(entries), ROWS_PER_COMMIT):
        chunk = entries[first : first + ROWS_PER_COMMIT]
        recorded = _commit(engine, chunk, done, refuse)
        owners.update(recorded.owners)
        ids = [row["id"] for row, *_ in chunk]
        done += (owners[i].job_id if i in owners else i for i in ids)
        try:
            refused = _send_entries(client, keys, chunk, recorded.owners)
            if refused is None and recorded.unsent:
                send(client, keys, recorded.unsent)
        except redis.RedisError as error:
            raise SubmitInterrupted("Redis", str(error), done) from error
        if refused is not None:
            if stay := _without_refused(engine, chunk, done, refused):
                raise SubmitInterrupted("Redis", str(refused.error), stay) from refused.error
            raise refused.error
    return owners


class MessagesRefused(NamedTuple):
    """Jobs whose messages Redis refused for sure: it has none of them."""

    ids: frozenset[str]
    error: redis.RedisError


def _without_refused(
    engine: Engine, chunk: Sequence[QueueEntry], done: Sequence[str], refused: MessagesRefused
) -> list[str]:
    """Delete the rows of refused jobs with their idempotency keys; return which jobs stay.

    All stay if the database cannot be reached: maintenance sends their messages later.
    """
    taken = [(key.tenant, key.key) for *_, key in chunk if key and key.job_id in refused.ids]
    with_metadata = [row["id"] for row, _, _, pairs, _ in chunk
                     if pairs and row["id"] in refused.ids]  # fmt: skip
    waiting = jobs.c.id.in_(refused.ids), jobs.c.status == "queued", jobs.c.fence == 0
    try:
        with writing(engine) as connection:
            connection.execute(delete(jobs).where(*waiting))
            if with_metadata:
                of_them = job_metadata.c.job_id.in_(with_metadata)
                connection.execute(delete(job_metadata).where(of_them))
            if taken:
                place = tuple_(idempotency.c.tenant, idempotency.c.key).in_(taken)
                of_these = idempotency.c.job_id.in_(refused.ids)
                connection.execute(delete(idempotency).where(place, of_these))
    except DBAPIError as error:
        if not passes(error):
            raise
        return list(done)
    return [job_id for job_id in done if job_id not in refused.ids]


def _commit(
    engine: Engine, chunk: Sequence[QueueEntry], done: Sequence[str], refuse: bool
) -> Recorded:
    """Write a chunk in one transaction; say in an error what the chunks before have `done`."""
    new: list[dict[str, Any]] = []
    committing = False
    try:
        with writing(engine) as connection:
            recorded = _take_keys(connection, chunk, refuse)
            new = [row for row, *_ in chunk if row["id"] not in recorded.owners]
            if new:
                write_all(connection, _ADD, new)
                pairs = ((row["id"], found) for row, _, _, found, _ in chunk if found)
                add_metadata(connection, (one for one in pairs if one[0] not in recorded.owners))
            committing = True
        return recorded
    except DBAPIError as error:
        if passes(error) and (committing or done):
            unsure = [row["id"] for row in new] if committing else []
            raise SubmitInterrupted("the database", str(error.orig), done, unsure) from error
        raise
    except IdempotencyConflict as conflict:
        if done:
            raise IdempotencyConflict(conflict.key, conflict.job_id, done) from None
        raise


def _take_keys(connection: Connection, chunk: Sequence[QueueEntry], refuse: bool) -> Recorded:
    wanted = [key for *_, key in chunk if key is not None]
    if not wanted:
        return Recorded({}, [])
    owners = take(connection, wanted)
    if refuse:
        refuse_conflicts(wanted, owners)
    new = {row["id"] for row, *_ in chunk}
    others = {owner.job_id for owner in owners.values() if owner.is_same} - new
    return Recorded(owners, unsent(connection, others) if others else [])


def _send_entries(
    client: redis.Redis, keys: Keys, chunk: Sequence[QueueEntry], left_out: Collection[str]
) -> MessagesRefused | None:
    """Send the messages; return those that Redis refused, or None. Raise RedisError."""
    by_queue: dict[str, list[tuple[str, bytes]]] = {}
    for row, queue, text, *_ in chunk:
        if row["id"] not in left_out:
            by_queue.setdefault(queue, []).append((row["id"], text))
    while by_queue:
        queue = next(iter(by_queue))
        try:
            script.run(client, broker_jobs.send(keys, queue, by_queue[queue]))
        except redis.RedisError as error:
            if not refuses_for_now(error):
                raise
            ids = [job_id for pairs in by_queue.values() for job_id, _ in pairs]
            return MessagesRefused(frozenset(ids), error)
        del by_queue[queue]
    return None
