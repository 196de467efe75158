"""A key of the gateway: its secret, what is on record of it, and whether it is good now.

A secret is `hg-` and 32 random bytes as 43 characters. Nobody can guess so many, so a plain SHA-256
hides it: a slow hash protects short passwords, and would only make each call slow here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from sqlalchemy import RowMapping

from headgate.producer.callers.caller import SCOPES, Caller
from headgate.shared.job.ids import new_id, rfc3339
from headgate.shared.job.request import KEY_ID

SECRET = re.compile(r"hg-[A-Za-z0-9_-]{43}", re.ASCII)

KeyState = Literal["good", "expired", "revoked"]


def new_secret() -> str:
    """Return a new secret of 256 random bits."""
    return "hg-" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


def new_key_id() -> str:
    """Return a new id of a key; it is not secret."""
    return f"{KEY_ID}{new_id()[-12:]}"


def sha256_of(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal digits, as the database has it."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """What is on record of one key. Times are Unix ms.

    `budget_usd` holds for each `budget_period`. `previous_sha256` is of the secret before the last
    rotation, which is accepted until `previous_until_ms`.
    """

    id: str
    name: str
    caller: Caller
    budget_usd: str | None
    budget_period: Literal["day", "month"] | None
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    secret_sha256: str
    previous_sha256: str | None
    previous_until_ms: int | None

    @classmethod
    def of_row(cls, row: RowMapping) -> GatewayKey:
        """Return the key of a row of `gateway_keys`, without scopes that are not known here."""
        models = row["models"]
        caller = Caller(
            key_id=row["id"],
            tenant=row["tenant"],
            user=row["user_id"],
            any_user=row["any_user"],
            any_tenant=row["any_tenant"],
            tier=row["tier"],
            scopes=SCOPES & frozenset(orjson.loads(row["scopes"])),
            models=None if models is None else frozenset(orjson.loads(models)),
            rpm=row["rpm"],
            tpm=row["tpm"],
            origins=frozenset(orjson.loads(row["origins"])),
        )
        same = (
            "id", "name", "budget_usd", "budget_period", "created_at_ms", "expires_at_ms",
            "revoked_at_ms", "secret_sha256", "previous_sha256", "previous_until_ms",
        )  # fmt: skip
        return cls(caller=caller, **{name: row[name] for name in same})

    def state(self, at_ms: int) -> KeyState:
        """Return whether the key is good at this moment."""
        if self.revoked_at_ms is not None:
            return "revoked"
        if self.expires_at_ms is not None and at_ms >= self.expires_at_ms:
            return "expired"
        return "good"

    def opens_with(self, digest: str, at_ms: int) -> bool:
        """Return whether this digest is that of its secret, compared in constant time."""
        is_current = hmac.compare_digest(self.secret_sha256, digest)
        is_previous = hmac.compare_digest(self.previous_sha256 or "", digest)
        return is_current or (is_previous and at_ms < (self.previous_until_ms or 0))

    def as_json(self, at_ms: int) -> dict[str, Any]:
        """Return the key for `--json`, without the hashes of its secrets."""
        caller = self.caller
        grace_ms = self.previous_until_ms if self.previous_sha256 else None
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state(at_ms),
            "tenant": caller.tenant,
            "user": caller.user,
            "any_user": caller.any_user,
            "any_tenant": caller.any_tenant,
            "tier": caller.tier,
            "scopes": sorted(caller.scopes),
            "models": None if caller.models is None else sorted(caller.models),
            "rpm": caller.rpm,
            "tpm": caller.tpm,
            "budget_usd": self.budget_usd,
            "budget_period": self.budget_period,
            "origins": sorted(caller.origins),
            "created_at": rfc3339(self.created_at_ms),
            "expires_at": rfc3339(self.expires_at_ms),
            "revoked_at": rfc3339(self.revoked_at_ms),
            "previous_until": rfc3339(grace_ms),
        }
