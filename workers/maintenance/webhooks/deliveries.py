"""The events on record: which are due, what became of an attempt, and when a batch has ended.

A claim puts an event off by `LEASE_MS`. If the worker dies in the middle of an attempt, another one
tries the event again after that, under the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, delete, select, update

from headgate.shared.database.engine import reading, writing
from headgate.shared.database.many_rows import write_each
from headgate.shared.database.tables import webhook_deliveries, webhook_tenants
from headgate.shared.database.webhooks import secret_of

LEASE_MS = 60_000
"""How long an event belongs to the worker that tries it: twice the time of an attempt."""

PAGE = 500

_ROW = webhook_deliveries.c
_DUE = _ROW.state == "pending"


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event to be sent. `attempts`: the number of this attempt. `secrets`: the newest first.

    `url`: None if the tenant has no webhook any more. `is_own`: the URL is that of its request or
    batch, not the tenant's.
    """

    id: str
    tenant: str
    url: str | None
    is_own: bool
    body: str
    attempts: int
    until_ms: int
    secrets: tuple[str, ...]


def claim(
    engine: Engine, at_ms: int, *, most: int, each: int, running: Mapping[str, int]
) -> list[DueEvent]:
    """Return up to `most` events that are due now (Unix ms), claimed for this worker.

    A tenant has at most `each` events under way; `running` counts those that it has already.
    """
    busy = [tenant for tenant, count in running.items() if count >= each]
    query = (
        select(_ROW.id, _ROW.tenant, _ROW.url, _ROW.body, _ROW.attempts, _ROW.until_ms)
        .where(_DUE, _ROW.due_at_ms <= at_ms, _ROW.tenant.not_in(busy))
        .order_by(_ROW.due_at_ms)
        .limit(most)
    )
    with reading(engine) as connection:
        if connection.execute(query.limit(1)).first() is None:
            return []
    with writing(engine) as connection:
        rows = connection.execute(query.with_for_update(skip_locked=True)).all()
        taken = _within(rows, each, running)
        if not taken:
            return []
        change = {
            "due_at_ms": at_ms + LEASE_MS,
            "tried_at_ms": at_ms,
            "attempts": _ROW.attempts + 1,
        }
        ids = [row.id for row in taken]
        connection.execute(update(webhook_deliveries).where(_ROW.id.in_(ids)).values(change))
        tenants = _tenants(connection, {row.tenant for row in taken}, at_ms)
    return [
        DueEvent(
            row.id, row.tenant, row.url or tenants[row.tenant][0], row.url is not None, row.body,
            row.attempts + 1, row.until_ms, tenants[row.tenant][1],
        )
        for row in taken
    ]  # fmt: skip


def _within(rows: Sequence[Any], each: int, running: Mapping[str, int]) -> list[Any]:
    """Return the rows of events with which no tenant has more than `each` under way."""
    counts = dict(running)
    taken = []
    for row in rows:
        counts[row.tenant] = counts.get(row.tenant, 0) + 1
        if counts[row.tenant] <= each:
            taken.append(row)
    return taken


def _tenants(
    connection: Connection, tenants: Collection[str], at_ms: int
) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    """Return the URL of each tenant, if it is in use, and its secrets."""
    query = select(webhook_tenants).where(webhook_tenants.c.tenant.in_(tenants))
    found: dict[str, tuple[str | None, tuple[str, ...]]] = {}
    for row in connection.execute(query):
        secrets = [row.secret]
        if row.previous_secret and at_ms < (row.previous_until_ms or 0):
            secrets.append(row.previous_secret)
        found[row.tenant] = None if row.disabled_at_ms else row.url, tuple(secrets)
    for tenant in set(tenants) - found.keys():
        found[tenant] = None, (secret_of(connection, tenant, at_ms),)
    return found


@dataclass(frozen=True, slots=True)
class Attempted:
    """What became of an attempt. Times are Unix ms. `gone`: its URL wants no events any more."""

    event: DueEvent
    state: str
    at_ms: int
    http_status: int | None = None
    error: str | None = None
    due_at_ms: int | None = None
    gone: bool = False


_SETTLE = (
    update(webhook_deliveries)
    .where(_ROW.id == bindparam("event_id"), _ROW.attempts == bindparam("attempt"), _DUE)
    .values(
        state=bindparam("into"),
        http_status=bindparam("status"),
        error=bindparam("why"),
        due_at_ms=bindparam("next_ms"),
        ended_at_ms=bindparam("end_ms"),
    )
)


def settle(connection: Connection, items: Sequence[Attempted]) -> list[None]:
    """Record what became of these attempts; an attempt whose claim has lapsed changes nothing."""
    rows = [
        {
            "event_id": item.event.id,
            "attempt": item.event.attempts,
            "into": item.state,
            "status": item.http_status,
            "why": item.error and item.error[:256],
            "next_ms": item.due_at_ms,
            "end_ms": None if item.state == "pending" else item.at_ms,
        }
        for item in items
    ]
    write_each(connection, _SETTLE, rows)
    for item in items:
        if item.gone:
            _disable(connection, item)
    return [None] * len(items)


def _disable(connection: Connection, item: Attempted) -> None:
    """Stop all events of the tenant for this URL; a tenant's own URL gets no new ones either.

    If the tenant has another URL by now, the event goes there.
    """
    url, tenant = item.event.url, item.event.tenant
    if not item.event.is_own:
        mine = webhook_tenants.c.tenant == tenant, webhook_tenants.c.url == url
        gone = update(webhook_tenants).where(*mine).values(disabled_at_ms=item.at_ms)
        if not connection.execute(gone).rowcount:
            again = {"state": "pending", "due_at_ms": item.at_ms, "ended_at_ms": None}
            this = _ROW.id == item.event.id, _ROW.attempts == item.event.attempts
            change = update(webhook_deliveries).where(*this, _ROW.state == "disabled")
            connection.execute(change.values(again))
            return
    its = _ROW.url == url if item.event.is_own else _ROW.url.is_(None)
    ended = {"state": "disabled", "due_at_ms": None, "ended_at_ms": item.at_ms, "error": item.error}
    stop = update(webhook_deliveries).where(_DUE, _ROW.tenant == tenant, its)
    connection.execute(stop.values(ended))


def prune(engine: Engine, before_ms: int) -> int:
    """Delete the events that ended before this time (Unix ms); return how many."""
    old = select(_ROW.id).where(
        _ROW.created_at_ms < before_ms, _ROW.ended_at_ms.is_not(None), _ROW.ended_at_ms < before_ms
    )
    deleted = 0
    while True:
        with reading(engine) as connection:
            ids = list(connection.scalars(old.limit(PAGE)))
        if not ids:
            return deleted
        with writing(engine) as connection:
            connection.execute(delete(webhook_deliveries).where(_ROW.id.in_(ids)))
        deleted += len(ids)
