"""Idempotency keys: the same request submitted again under the same key is the same job.

The row of a key is written in the transaction of its job's row, so either both exist or neither.
Whatever dies or gets lost in between, a caller may submit again until it receives an id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, Engine, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from headgate.producer.errors import IdempotencyConflict
from headgate.shared.database.engine import reading
from headgate.shared.database.many_rows import write_each
from headgate.shared.database.tables import KEY_KEPT_MS, idempotency, jobs
from headgate.shared.errors import NewerEnvelope, UnreadableMessage
from headgate.shared.job.encoding import dumps, unwritable
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
"""By dialect: takes a key that is free or was taken a day ago, and changes nothing otherwise."""


class IdempotencyKey(NamedTuple):
    """The key of a job: its tenant, the key, a hash of the request, the job's id, its Unix ms."""

    tenant: str
    key: str
    body_sha256: str
    job_id: str
    at_ms: int


class KeyOwner(NamedTuple):
    """The job that has a key already, and whether its request is the same."""

    job_id: str
    is_same: bool


def body_sha256(request: Request) -> str:
    """Return a hash that is equal for equal requests, whatever the order of their fields.

    Fields with their default value do not count. The hash is of what the caller gave, before
    settings and catalog fill in the rest. Raises InvalidRequest for what JSON cannot carry.
    """
    body = request.model_dump(exclude={"idempotency_key"}, exclude_defaults=True)
    try:
        return hashlib.sha256(dumps(body, orjson.OPT_SORT_KEYS)).hexdigest()
    except (TypeError, ValueError, RecursionError) as error:
        raise unwritable(body, error) from None


def key_of(envelope: Envelope) -> IdempotencyKey:
    """Return the key of a job that has one."""
    request = envelope.request
    key, body = request.idempotency_key or "", envelope.body_sha256
    return IdempotencyKey(request.tenant, key, body, envelope.id, envelope.submitted_at_ms)


def take(connection: Connection, wanted: Sequence[IdempotencyKey]) -> dict[str, KeyOwner]:
    """Take the keys for their jobs; return, by job id, the owners of keys that were taken before.

    If several jobs want one key, the first takes it. If another transaction takes one of the keys
    at the same time, one of the two waits for the end of the other.
    """
    # Sorted, because two transactions that want the same keys would deadlock otherwise.
    rows = [
        {
            "tenant": one.tenant, "key": one.key, "body_sha256": one.body_sha256,
            "job_id": one.job_id, "created_at_ms": one.at_ms,
        }
        for one in sorted(wanted, key=lambda one: one[:2])
    ]  # fmt: skip
    write_each(connection, _TAKE[connection.dialect.name], rows)
    return _owners(wanted, _read_keys(connection, wanted))


def look(engine: Engine, wanted: Sequence[IdempotencyKey]) -> dict[str, KeyOwner]:
    """Return what `take` would return now, without taking any key."""
    first_of: dict[tuple[str, str], IdempotencyKey] = {}
    for one in wanted:
        first_of.setdefault(one[:2], one)
    with reading(engine) as connection:
        taken = _read_keys(connection, wanted)
    for one in first_of.values():
        owner = taken.get(one[:2])
        if owner is None or owner.at_ms <= one.at_ms - KEY_KEPT_MS:
            taken[one[:2]] = one
    return _owners(wanted, taken)


def refuse_conflicts(wanted: Iterable[IdempotencyKey], owners: Mapping[str, KeyOwner]) -> None:
    """Raise IdempotencyConflict for the first key whose owner has another request."""
    for one in wanted:
        owner = owners.get(one.job_id)
        if owner is not None and not owner.is_same:
            raise IdempotencyConflict(one.key, owner.job_id)


def unsent(connection: Connection, ids: Collection[str]) -> list[tuple[Envelope, bytes]]:
    """Return the jobs of these ids that no worker has started: their message may be missing."""
    query = select(jobs.c.envelope).where(jobs.c.id.in_(ids), jobs.c.status == "queued")
    found = []
    for (text,) in connection.execute(query):
        try:
            found.append((Envelope.decode(orjson.loads(text or "null")), text.encode()))
        except (UnreadableMessage, NewerEnvelope):
            continue  # a newer worker can read it, and sends it again
    return found


def _read_keys(
    connection: Connection, wanted: Sequence[IdempotencyKey]
) -> dict[tuple[str, str], IdempotencyKey]:
    names = sorted({one[:2] for one in wanted})
    query = select(idempotency)
    taken = {}
    for first in range(0, len(names), _KEYS_PER_QUERY):
        some = names[first : first + _KEYS_PER_QUERY]
        where = tuple_(idempotency.c.tenant, idempotency.c.key).in_(some)
        for row in connection.execute(query.where(where)):
            one = IdempotencyKey(
                row.tenant, row.key, row.body_sha256, row.job_id, row.created_at_ms
            )
            taken[one[:2]] = one
    return taken


def _owners(
    wanted: Iterable[IdempotencyKey], taken: Mapping[tuple[str, str], IdempotencyKey]
) -> dict[str, KeyOwner]:
    owners = {}
    for one in wanted:
        owner = taken[one[:2]]
        if owner.job_id != one.job_id:
            owners[one.job_id] = KeyOwner(owner.job_id, owner.body_sha256 == one.body_sha256)
    return owners
