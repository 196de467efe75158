"""Finds batches that have ended and makes the events for their webhooks."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, delete, func, select, update

from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import batches, jobs, webhook_deliveries
from headgate.shared.database.webhooks import subscriptions
from headgate.shared.job.webhook_event import DAY_MS, batch_event, chooses

PAGE = 100

SOONEST_MS = 2000
LATEST_MS = 60_000
"""A batch is looked at again after a twentieth of its age, within these bounds."""

_ROW = webhook_deliveries.c


class Looked(NamedTuple):
    """How many batches have ended since the last look, and how many have not."""

    ended: int
    left: int


def look(engine: Engine, at_ms: int, *, early: bool = False) -> Looked:
    """Make the events of the batches that have ended by now (Unix ms).

    `early`: look also at those whose turn comes later.
    """
    due_by_ms = at_ms + (LATEST_MS if early else 0)
    query = (
        select(_ROW.id, _ROW.batch_id, _ROW.tenant, _ROW.url, _ROW.created_at_ms)
        .where(_ROW.state == "waiting", _ROW.due_at_ms <= due_by_ms)
        .order_by(_ROW.due_at_ms)
        .limit(PAGE)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    ended = 0
    for row in rows:
        with writing(engine) as connection:
            ended += _look_at(connection, row, at_ms)
    return Looked(ended, len(rows) - ended)


def _look_at(connection: Connection, row: Any, at_ms: int) -> int:
    mine = _ROW.id == row.id, _ROW.state == "waiting"
    batch = connection.execute(select(batches).where(batches.c.id == row.batch_id)).first()
    if batch is None:  # pruned: nobody wants to know any more
        connection.execute(delete(webhook_deliveries).where(*mine))
        return 0
    outcome = _outcome(connection, batch)
    if outcome is None:
        wait_ms = max(SOONEST_MS, min(LATEST_MS, (at_ms - row.created_at_ms) // 20))
        later = update(webhook_deliveries).where(*mine).values(due_at_ms=at_ms + wait_ms)
        connection.execute(later)
        return 0
    event = batch_event(row.batch_id, outcome, at_ms)
    if row.url is None and not _is_wanted(connection, row.tenant, event.type):
        connection.execute(delete(webhook_deliveries).where(*mine))
        return 0
    change = {
        "event": event.type, "body": event.body, "state": "pending", "created_at_ms": at_ms,
        "due_at_ms": at_ms, "until_ms": at_ms + DAY_MS,
    }  # fmt: skip
    return connection.execute(update(webhook_deliveries).where(*mine).values(change)).rowcount


def _is_wanted(connection: Connection, tenant: str, name: str) -> bool:
    """Return whether the tenant wants this event; one without a webhook sees why it is not sent."""
    subscribed = subscriptions(connection, [tenant])
    return tenant not in subscribed or chooses(subscribed[tenant], name)


def _outcome(connection: Connection, batch: Any) -> str | None:
    """Return how the batch has ended; None if it has not.

    As at OpenAI, a batch with failed lines is completed. It has failed if none of its lines became
    a job, and it has expired if a job was not answered in time.
    """
    is_cancelled = batch.cancelled_at_ms is not None
    if batch.submitted_at_ms is None and not is_cancelled:
        return None
    ours = select(jobs.c.id).where(jobs.c.batch_id == batch.id).limit(1)
    if connection.execute(ours.where(jobs.c.finished_at_ms.is_(None))).first() is not None:
        return None
    if is_cancelled:
        return "cancelled"
    expired = select(func.count()).where(jobs.c.batch_id == batch.id, jobs.c.status == "expired")
    if connection.scalar(expired):
        return "expired"
    return "completed" if connection.execute(ours).first() is not None else "failed"
