"""Who calls the gateway, and what the caller may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal[
    "chat", "embeddings", "jobs", "batches", "usage", "view", "operate", "admin", "bodies"
]
"""What a key may do. `bodies`: read prompts and answers of others in its tenant."""

SCOPES: frozenset[Scope] = frozenset(get_args(Scope))

DEFAULT_SCOPES: frozenset[Scope] = frozenset({"chat", "embeddings", "jobs"})
"""What a key may do for which its maker names nothing: calls and jobs of its own."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key. `key_id` is empty where the gateway is open.

    `user`: whose calls these are; None: not named. `any_user`: each call may name its user.
    `any_tenant`: each call may name its tenant. `models`: the models that the key may name; None:
    all. `origins`: the web pages that may use the key; empty: none but those of the settings.
    """

    key_id: str = ""
    tenant: str = "default"
    user: str | None = None
    any_user: bool = False
    any_tenant: bool = False
    tier: str | None = None
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    models: frozenset[str] | None = None
    rpm: int | None = None
    tpm: int | None = None
    origins: frozenset[str] = frozenset()


OPEN_CALLER = Caller(any_user=True, any_tenant=True, scopes=SCOPES)
"""Everyone at a gateway that serves without keys."""
