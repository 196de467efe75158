"""The table of gateway keys: create, list, rotate and revoke keys. Every function blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import Engine, Select, and_, insert, or_, select, update

from headgate.producer.callers.caller import DEFAULT_SCOPES, Scope
from headgate.producer.callers.keys import GatewayKey, new_key_id, new_secret, sha256_of
from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import gateway_keys
from headgate.shared.errors import WrongUse
from headgate.shared.job.ids import now_ms


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a new key may do. `expires_at_ms`: Unix ms; None: never."""

    name: str
    tenant: str = "default"
    user: str | None = None
    any_user: bool = False
    any_tenant: bool = False
    tier: str | None = None
    scopes: tuple[Scope, ...] = tuple(sorted(DEFAULT_SCOPES))
    models: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    budget_usd: str | None = None
    budget_period: Literal["day", "month"] | None = None
    origins: tuple[str, ...] = ()
    expires_at_ms: int | None = None


def create(engine: Engine, new: NewKey) -> tuple[GatewayKey, str]:
    """Write a new key; return it with its secret, which is stored nowhere."""
    secret = new_secret()
    row: dict[str, Any] = {
        "id": new_key_id(),
        "name": new.name,
        "tenant": new.tenant,
        "user_id": new.user,
        "any_user": new.any_user,
        "any_tenant": new.any_tenant,
        "tier": new.tier,
        "scopes": orjson.dumps(sorted(set(new.scopes))).decode(),
        "models": orjson.dumps(sorted(set(new.models))).decode() if new.models else None,
        "rpm": new.rpm,
        "tpm": new.tpm,
        "budget_usd": new.budget_usd,
        "budget_period": new.budget_period,
        "origins": orjson.dumps(sorted(set(new.origins))).decode(),
        "created_at_ms": now_ms(),
        "expires_at_ms": new.expires_at_ms,
        "secret_sha256": sha256_of(secret),
    }
    with writing(engine) as connection:
        connection.execute(insert(gateway_keys).values(row))
    return show(engine, row["id"]), secret


def all_keys(engine: Engine) -> list[GatewayKey]:
    """Return all keys, the oldest first; also those that are expired or revoked."""
    query = select(gateway_keys).order_by(gateway_keys.c.created_at_ms, gateway_keys.c.id)
    with reading(engine) as connection:
        return [GatewayKey.of_row(row) for row in connection.execute(query).mappings()]


def show(engine: Engine, key_id: str) -> GatewayKey:
    """Return the key of this id; raise WrongUse if there is none."""
    found = _first(engine, select(gateway_keys).where(gateway_keys.c.id == key_id))
    if found is None:
        raise _unknown(key_id)
    return found


def find(engine: Engine, digest: str) -> GatewayKey | None:
    """Return the key that has a secret with this SHA-256 now, or had it before a rotation.

    The key may be expired or revoked.
    """
    digests = gateway_keys.c.secret_sha256, gateway_keys.c.previous_sha256
    return _first(engine, select(gateway_keys).where(or_(*(one == digest for one in digests))))


def origins(engine: Engine, at_ms: Callable[[], int] = now_ms) -> frozenset[str]:
    """Return the origins that the keys list which are good now, by this clock (Unix ms)."""
    query = select(gateway_keys).where(
        gateway_keys.c.origins != "[]", gateway_keys.c.revoked_at_ms.is_(None)
    )
    with reading(engine) as connection:
        found = [GatewayKey.of_row(row) for row in connection.execute(query).mappings()]
    good = (key.caller.origins for key in found if key.state(at_ms()) == "good")
    return frozenset().union(*good)


def rotate(engine: Engine, key_id: str, grace_ms: int) -> tuple[GatewayKey, str]:
    """Give the key a new secret; return it with the secret. The old one is good for `grace_ms`.

    Raises WrongUse if there is no such key, and if it is revoked.
    """
    secret, at_ms = new_secret(), now_ms()
    change = (
        update(gateway_keys)
        .where(and_(gateway_keys.c.id == key_id, gateway_keys.c.revoked_at_ms.is_(None)))
        .values(
            previous_sha256=gateway_keys.c.secret_sha256 if grace_ms else None,
            previous_until_ms=at_ms + grace_ms if grace_ms else None,
            secret_sha256=sha256_of(secret),
        )
    )
    with writing(engine) as connection:
        done = connection.execute(change).rowcount
    found = show(engine, key_id)
    if not done:
        raise WrongUse("ID", key_id, "the key is revoked; create a new one")
    return found, secret


def revoke(engine: Engine, key_id: str) -> GatewayKey:
    """Make the key useless, with both of its secrets; raise WrongUse if there is no such key.

    A key that is revoked already keeps the time of its first revocation.
    """
    mine = gateway_keys.c.id == key_id, gateway_keys.c.revoked_at_ms.is_(None)
    with writing(engine) as connection:
        connection.execute(update(gateway_keys).where(*mine).values(revoked_at_ms=now_ms()))
    return show(engine, key_id)


def _first(engine: Engine, query: Select[Any]) -> GatewayKey | None:
    with reading(engine) as connection:
        row = connection.execute(query.limit(1)).mappings().first()
    return None if row is None else GatewayKey.of_row(row)


def _unknown(key_id: str) -> WrongUse:
    return WrongUse("ID", key_id, "no such key; headgate keys list shows all")
