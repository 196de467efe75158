"""Jobs by the key that their caller gave them: submitted again, the same request is the same job.

The row of a key is written in the transaction of its job's row, so that both stand or neither does:
whoever dies in between, whatever answer gets lost, a caller may submit again until it hears an id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, Engine, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from headgate.producer.errors import IdempotencyConflict
from headgate.shared.database.engine import reading, write_all
from headgate.shared.database.tables import KEY_KEPT_MS, idempotency, jobs
from headgate.shared.errors import InvalidRequest, NewerEnvelope, UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import Request

_KEYS_PER_QUERY = 500
_TAKE = {}
for _name, _dialect in (("sqlite", sqlite), ("postgresql", postgresql)):
    _insert = _dialect.insert(idempotency)
    _TAKE[_name] = _insert.on_conflict_do_update(
        index_elements=["tenant", "key"],
        set_={name: _insert.excluded[name] for name in ("body_sha256", "job_id", "created_at_ms")},
        where=idempotency.c.created_at_ms <= _insert.excluded.created_at_ms - KEY_KEPT_MS,
    )
"""Takes a key that is free, or was taken a day ago; changes nothing otherwise."""


class IdempotencyKey(NamedTuple):
    """A job with a key: whose key it is, what it asks for, its id and its time (Unix ms)."""

    tenant: str
    key: str
    body_sha256: str
    job_id: str
    at_ms: int


class KeyOwner(NamedTuple):
    """The job that had the key before, and whether it asks for the same."""

    job_id: str
    is_same: bool


def body_sha256(request: Request) -> str:
    """The same for all requests that say the same, in whatever order, with or without defaults.

    Of what the caller gave, so that another setting or catalog makes no other request of it.
    """
    body = request.model_dump(exclude={"idempotency_key"}, exclude_defaults=True)
    try:
        return hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest("request", None, f"cannot be written as JSON: {error}") from None


def keyed(envelope: Envelope) -> IdempotencyKey:
    """The key of this job, which has one."""
    request = envelope.request
    key, body = request.idempotency_key or "", envelope.body_sha256
    return IdempotencyKey(request.tenant, key, body, envelope.id, envelope.submitted_at_ms)


def take(connection: Connection, wanted: Sequence[IdempotencyKey]) -> dict[str, KeyOwner]:
    """Every key has a job: one of these, or for the ids that are returned one from before.

    Of several with one key the first takes it. Another transaction that takes one of the keys at
    the same time ends first, or waits for the end of this one.
    """
    # In one order everywhere, or two that want the same keys would wait for each other.
    rows = [
        {
            "tenant": one.tenant, "key": one.key, "body_sha256": one.body_sha256,
            "job_id": one.job_id, "created_at_ms": one.at_ms,
        }
        for one in sorted(wanted, key=lambda one: one[:2])
    ]  # fmt: skip
    write_all(connection, _TAKE[connection.dialect.name], rows)
    return _others(wanted, _holders(connection, wanted))


def look(engine: Engine, wanted: Sequence[IdempotencyKey]) -> dict[str, KeyOwner]:
    """What `take` would say now, of the same keys, without taking any."""
    first_of: dict[tuple[str, str], IdempotencyKey] = {}
    for one in wanted:
        first_of.setdefault(one[:2], one)
    with reading(engine) as connection:
        held = _holders(connection, wanted)
    for one in first_of.values():
        holder = held.get(one[:2])
        if holder is None or holder.at_ms <= one.at_ms - KEY_KEPT_MS:
            held[one[:2]] = one
    return _others(wanted, held)


def refuse_conflicts(wanted: Iterable[IdempotencyKey], known: dict[str, KeyOwner]) -> None:
    """IdempotencyConflict for the first whose key stands for another request."""
    for one in wanted:
        before = known.get(one.job_id)
        if before is not None and not before.is_same:
            raise IdempotencyConflict(one.key, before.job_id)


def unsent(connection: Connection, ids: Collection[str]) -> list[tuple[Envelope, bytes]]:
    """Those of these jobs that nobody has begun: their message may never have been sent."""
    query = select(jobs.c.envelope).where(jobs.c.id.in_(ids), jobs.c.status == "queued")
    found = []
    for (text,) in connection.execute(query):
        try:
            found.append((Envelope.decode(orjson.loads(text or "null")), text.encode()))
        except (UnreadableMessage, NewerEnvelope):
            continue  # the sweep of a newer worker knows it
    return found


def _holders(
    connection: Connection, wanted: Sequence[IdempotencyKey]
) -> dict[tuple[str, str], IdempotencyKey]:
    names = sorted({one[:2] for one in wanted})
    query = select(idempotency)
    held = {}
    for first in range(0, len(names), _KEYS_PER_QUERY):
        some = names[first : first + _KEYS_PER_QUERY]
        where = tuple_(idempotency.c.tenant, idempotency.c.key).in_(some)
        for row in connection.execute(query.where(where)):
            one = IdempotencyKey(
                row.tenant, row.key, row.body_sha256, row.job_id, row.created_at_ms
            )
            held[one[:2]] = one
    return held


def _others(
    wanted: Iterable[IdempotencyKey], held: dict[tuple[str, str], IdempotencyKey]
) -> dict[str, KeyOwner]:
    found = {}
    for one in wanted:
        holder = held[one[:2]]
        if holder.job_id != one.job_id:
            found[one.job_id] = KeyOwner(holder.job_id, holder.body_sha256 == one.body_sha256)
    return found
