"""Scopes: what a limit or a budget holds for, as keys and tickets name it."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote, unquote

GLOBAL = "global"
EVERY_TENANT = "tenant/*"


def tenant_scope(tenant: str) -> str:
    """Return the scope of this tenant."""
    return f"tenant/{quoted(tenant)}"


def user_scope(tenant: str, user: str) -> str:
    """Return the scope of this user."""
    return f"user/{quoted(tenant)}/{quoted(user)}"


def key_scope(key_id: str) -> str:
    """Return the scope of this gateway key."""
    return f"key/{key_id}"


def user_named(name: str) -> tuple[str, str]:
    """Return tenant and user of a name in the catalog's table `users`."""
    tenant, _, user = name.partition("/")
    return unquote(tenant), unquote(user)


def shown(scope: str) -> str:
    """Return the scope as an operator writes it."""
    kind, _, name = scope.partition("/")
    if kind == "tenant":
        return f"tenant/{unquote(name)}"
    if kind == "user":
        names = (unquote(part).replace("%", "%25") for part in name.split("/", 1))
        return "/".join(["user", *(part.replace("/", "%2F") for part in names)])
    return scope


def tier_scope(tier: str, model: str = "") -> str:
    """Return the scope of a tier, or of one model in it."""
    return f"tier/{tier}/{model}" if model else f"tier/{tier}"


@lru_cache(maxsize=8192)
def quoted(name: str) -> str:
    """Return a caller's name as tickets and keys hold it: percent-encoded."""
    return quote(name, safe="")


def unquoted(name: str) -> str:
    """Return the name that `quoted` has encoded."""
    return unquote(name)
