"""The webhooks of tenants and the events on record: list, set, rotate, send again. All block."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, RowMapping, Select, insert, select, update

from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import webhook_deliveries, webhook_tenants
from headgate.shared.database.webhooks import new_secret, secret_of
from headgate.shared.errors import WrongUse
from headgate.shared.job.ids import now_ms, rfc3339
from headgate.shared.job.webhook_event import DAY_MS, PATTERNS
from headgate.shared.webhook_target import AllowedTargets, checked_url, shown_url, why_forbidden

STATES = ("waiting", "pending", "delivered", "failed", "disabled")
"""What an event can be: its batch runs; it is tried; it has ended, in one of three ways."""

IDS_PER_QUERY = 500

_ROW = webhook_deliveries.c


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Chooses events; None allows all."""

    state: str | None = None
    tenant: str | None = None
    job_id: str | None = None
    batch_id: str | None = None

    def of(self, query: Select[Any]) -> Select[Any]:
        """Return the query for the chosen events only."""
        for column, value in (
            (_ROW.state, self.state), (_ROW.tenant, self.tenant), (_ROW.job_id, self.job_id),
            (_ROW.batch_id, self.batch_id),
        ):  # fmt: skip
            if value is not None:
                query = query.where(column == value)
        return query


def events(engine: Engine, wanted: EventFilter, limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` of the chosen events, the newest first, as `--json` prints them."""
    query = wanted.of(select(webhook_deliveries)).order_by(_ROW.created_at_ms.desc(), _ROW.id)
    with reading(engine) as connection:
        rows = connection.execute(query.limit(limit)).mappings().all()
        urls = _urls(connection, {row["tenant"] for row in rows})
    return [_event_json(row, urls) for row in rows]


def event(engine: Engine, event_id: str) -> dict[str, Any]:
    """Return the event of this id with its body; raise WrongUse if there is none."""
    with reading(engine) as connection:
        query = select(webhook_deliveries).where(_ROW.id == event_id)
        row = connection.execute(query).mappings().first()
        if row is None:
            raise _unknown(event_id)
        found = _event_json(row, _urls(connection, {row["tenant"]}))
    return {**found, "body": orjson.loads(row["body"]) if row["body"] else None}


def resend(engine: Engine, ids: Sequence[str]) -> list[str]:
    """Have these events sent again under their ids, for a day; return those that are.

    An event whose batch has not ended is left out. Raises WrongUse for an unknown id, with no event
    changed.
    """
    with reading(engine) as connection:
        known = set[str]()
        for first in range(0, len(ids), IDS_PER_QUERY):
            part = ids[first : first + IDS_PER_QUERY]
            known |= set(connection.scalars(select(_ROW.id).where(_ROW.id.in_(part))))
    for one in ids:
        if one not in known:
            raise _unknown(one)
    at_ms = now_ms()
    values = {
        "state": "pending", "attempts": 0, "due_at_ms": at_ms, "until_ms": at_ms + DAY_MS,
        "ended_at_ms": None,
    }  # fmt: skip
    done = []
    with writing(engine) as connection:
        for one in dict.fromkeys(ids):
            change = update(webhook_deliveries).where(_ROW.id == one, _ROW.state != "waiting")
            if connection.execute(change.values(values)).rowcount:
                done.append(one)
    return done


def chosen(engine: Engine, wanted: EventFilter) -> list[str]:
    """Return the ids of all chosen events, the oldest first."""
    with reading(engine) as connection:
        return list(connection.scalars(wanted.of(select(_ROW.id)).order_by(_ROW.created_at_ms)))


def tenants(engine: Engine) -> list[dict[str, Any]]:
    """Return all tenants with a webhook or a secret, as `--json` prints them, without secrets."""
    query = select(webhook_tenants).order_by(webhook_tenants.c.tenant)
    with reading(engine) as connection:
        return [_tenant_json(row) for row in connection.execute(query).mappings()]


def set_url(
    engine: Engine, tenant: str, url: str, chosen_events: Collection[str], allowed: AllowedTargets
) -> dict[str, Any]:
    """Give the tenant this webhook, for these events or all; raise WrongUse for a bad one."""
    try:
        why = why_forbidden(checked_url(url), allowed)
    except ValueError as error:
        why = str(error)
    if why is not None:
        raise WrongUse("URL", url, why)
    for one in chosen_events:
        if one not in PATTERNS:
            raise WrongUse("--event", one, f"use one of {', '.join(PATTERNS)}")
    listed = orjson.dumps(sorted(set(chosen_events))).decode() if chosen_events else None
    change = {"url": url, "events": listed, "disabled_at_ms": None}
    with writing(engine) as connection:
        secret_of(connection, tenant, now_ms())
        mine = webhook_tenants.c.tenant == tenant
        connection.execute(update(webhook_tenants).where(mine).values(change))
        return _tenant(connection, tenant)


def unset_url(engine: Engine, tenant: str) -> None:
    """Take its webhook from the tenant, which keeps its secret; raise WrongUse if it has none."""
    mine = webhook_tenants.c.tenant == tenant, webhook_tenants.c.url.is_not(None)
    change = update(webhook_tenants).where(*mine).values(url=None, events=None, disabled_at_ms=None)
    with writing(engine) as connection:
        if not connection.execute(change).rowcount:
            raise WrongUse("--tenant", tenant, "it has no webhook; see `headgate webhooks tenants`")


def create_secret(engine: Engine, tenant: str) -> str:
    """Make the secret of a tenant that has none, and return it; raise WrongUse if it has one."""
    row = {"tenant": tenant, "secret": new_secret(), "created_at_ms": now_ms()}
    mine = webhook_tenants.c.tenant == tenant
    with writing(engine) as connection:
        if connection.scalar(select(webhook_tenants.c.tenant).where(mine)) is not None:
            remedy = "it has a secret; show it with `headgate webhooks secret show`, or rotate it"
            raise WrongUse("--tenant", tenant, remedy)
        connection.execute(insert(webhook_tenants).values(row))
    return row["secret"]  # type: ignore[return-value]  # the time beside it is a number


def show_secret(engine: Engine, tenant: str) -> str:
    """Return the secret of the tenant; raise WrongUse if it has none."""
    query = select(webhook_tenants.c.secret).where(webhook_tenants.c.tenant == tenant)
    with reading(engine) as connection:
        found = connection.scalar(query)
    if found is None:
        raise _no_secret(tenant)
    return str(found)


def rotate_secret(engine: Engine, tenant: str, grace_ms: int) -> str:
    """Give the tenant a new secret and return it. The old one signs, too, for `grace_ms`.

    Raises WrongUse if the tenant has no secret.
    """
    secret, columns = new_secret(), webhook_tenants.c
    change = (
        update(webhook_tenants)
        .where(columns.tenant == tenant)
        .values(
            previous_secret=columns.secret if grace_ms else None,
            previous_until_ms=now_ms() + grace_ms if grace_ms else None,
            secret=secret,
        )
    )
    with writing(engine) as connection:
        if not connection.execute(change).rowcount:
            raise _no_secret(tenant)
    return secret


def _urls(connection: Connection, names: Collection[str]) -> dict[str, str | None]:
    query = select(webhook_tenants.c.tenant, webhook_tenants.c.url)
    rows = connection.execute(query.where(webhook_tenants.c.tenant.in_(names))).all()
    return {row.tenant: row.url for row in rows}


def _event_json(row: RowMapping, urls: dict[str, str | None]) -> dict[str, Any]:
    url = row["url"] or urls.get(row["tenant"])
    return {
        "id": row["id"],
        "event": row["event"] or None,
        "state": row["state"],
        "tenant": row["tenant"],
        "job_id": row["job_id"],
        "batch_id": row["batch_id"],
        "url": None if url is None else shown_url(url),
        "attempts": row["attempts"],
        "http_status": row["http_status"],
        "error": row["error"],
        "created_at": rfc3339(row["created_at_ms"]),
        "tried_at": rfc3339(row["tried_at_ms"]),
        "next_at": rfc3339(row["due_at_ms"]) if row["state"] == "pending" else None,
        "ended_at": rfc3339(row["ended_at_ms"]),
    }


def _tenant(connection: Connection, tenant: str) -> dict[str, Any]:
    query = select(webhook_tenants).where(webhook_tenants.c.tenant == tenant)
    return _tenant_json(connection.execute(query).mappings().one())


def _tenant_json(row: RowMapping) -> dict[str, Any]:
    state = "disabled" if row["disabled_at_ms"] else "on" if row["url"] else "off"
    return {
        "tenant": row["tenant"],
        "state": state,
        "url": None if row["url"] is None else shown_url(row["url"]),
        "events": None if row["events"] is None else orjson.loads(row["events"]),
        "created_at": rfc3339(row["created_at_ms"]),
        "disabled_at": rfc3339(row["disabled_at_ms"]),
        "previous_until": rfc3339(row["previous_until_ms"]) if row["previous_secret"] else None,
    }


def _unknown(event_id: str) -> WrongUse:
    return WrongUse("ID", event_id, "no such event; `headgate webhooks list` shows all")


def _no_secret(tenant: str) -> WrongUse:
    remedy = "it has no secret; make one with `headgate webhooks secret create`"
    return WrongUse("--tenant", tenant, remedy)
