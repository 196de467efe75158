"""The events of webhooks as rows. Whoever ends a job writes its event in the same transaction."""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Mapping
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, select

from headgate.shared.database.engine import reading
from headgate.shared.database.many_rows import insert_all
from headgate.shared.database.tables import webhook_deliveries, webhook_tenants
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Result
from headgate.shared.job.webhook_event import DAY_MS, WebhookEvent, batch_digest, chooses, job_event

Subscriptions = Mapping[str, Collection[str] | None]
"""By tenant with a webhook of its own: the events that it gets; None is all."""


def subscriptions(connection: Connection, tenants: Collection[str] | None = None) -> Subscriptions:
    """Return the tenants whose webhooks get events now; of these tenants, or of all."""
    query = select(webhook_tenants.c.tenant, webhook_tenants.c.events).where(
        webhook_tenants.c.url.is_not(None), webhook_tenants.c.disabled_at_ms.is_(None)
    )
    if tenants is not None:
        query = query.where(webhook_tenants.c.tenant.in_(tenants))
    rows = connection.execute(query).all()
    return {row.tenant: None if row.events is None else orjson.loads(row.events) for row in rows}


def all_subscriptions(engine: Engine) -> Subscriptions:
    """Return all tenants whose webhooks get events now."""
    with reading(engine) as connection:
        return subscriptions(connection)


def event_row(
    envelope: Envelope, result: Result, fence: int, at_ms: int, subscribed: Subscriptions
) -> dict[str, Any] | None:
    """Return the row of the event of a job that ends; None for a job that calls nobody.

    The URL of the request counts, else that of its tenant. Jobs of batches do not call the tenant's
    URL: it gets one event for the batch. `fence`: the number of the claim under which the job ends.
    """
    request = envelope.request
    if request.webhook_url is None and (
        request.tenant not in subscribed or envelope.batch_id is not None
    ):
        return None
    event = job_event(envelope, result, fence, at_ms)
    if request.webhook_url is None and not chooses(subscribed[request.tenant], event.type):
        return None
    row = _row(event, request.tenant, request.webhook_url)
    return {**row, "job_id": envelope.id, "batch_id": envelope.batch_id}


def _row(event: WebhookEvent, tenant: str, url: str | None) -> dict[str, Any]:
    at_ms = event.created_at_ms
    return {
        "id": event.id, "tenant": tenant, "event": event.type, "url": url, "body": event.body,
        "state": "pending", "created_at_ms": at_ms, "due_at_ms": at_ms, "until_ms": at_ms + DAY_MS,
    }  # fmt: skip


def await_batch(
    connection: Connection, batch_id: str, tenant: str, url: str | None, at_ms: int
) -> None:
    """Write the event of a new batch, which waits for the end of its jobs, if anyone wants it."""
    if url is None and tenant not in subscriptions(connection, [tenant]):
        return
    event = WebhookEvent(batch_digest(batch_id), "", "", at_ms)
    row = {**_row(event, tenant, url), "state": "waiting", "batch_id": batch_id}
    insert_all(connection, webhook_deliveries, [row])


def new_secret() -> str:
    """Return a new secret of 256 random bits, in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(os.urandom(32)).decode()}"


def secret_of(connection: Connection, tenant: str, at_ms: int) -> str:
    """Return the secret of the tenant; make one if it has none."""
    query = select(webhook_tenants.c.secret).where(webhook_tenants.c.tenant == tenant)
    found = connection.scalar(query)
    if found is None:
        row = {"tenant": tenant, "secret": new_secret(), "created_at_ms": at_ms}
        insert_all(connection, webhook_tenants, [row])
        found = connection.scalar(query)
    return str(found)
