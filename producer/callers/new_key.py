"""Checks what an operator asks of a new key. Errors name the options of `headgate keys create`."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from headgate.producer.callers.store import NewKey
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.errors import InvalidRequest, WrongUse

LONGEST_NAME = 128
"""Most characters of the name of a key, a tenant or a user, as the columns have them."""


def checked(new: NewKey, catalog: Catalog) -> NewKey:
    """Return the key with models as the catalog names them; raise WrongUse."""
    for option, name in (("NAME", new.name), ("--tenant", new.tenant), ("--user", new.user)):
        if name is not None and not _is_name(name):
            raise WrongUse(option, name, f"give 1 to {LONGEST_NAME} printable characters")
    if new.user is not None and new.any_user:
        raise WrongUse("--user", new.user, "leave it out, or leave out --any-user")
    if new.tier is not None:
        _require_tier(new.tier, catalog)
    for origin in new.origins:
        _require_origin(origin)
    return replace(new, models=tuple(_model(name, catalog) for name in new.models))


def _is_name(name: str) -> bool:
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def _require_tier(tier: str, catalog: Catalog) -> None:
    try:
        catalog.tier(tier)
    except InvalidRequest as error:
        raise WrongUse("--tier", tier, error.remedy) from None


def _require_origin(origin: str) -> None:
    url = urlsplit(origin)
    if url.scheme not in ("http", "https") or origin != f"{url.scheme}://{url.netloc}":
        remedy = "give an origin such as https://app.example.com, without a path"
        raise WrongUse("--origin", origin, remedy)


def _model(name: str, catalog: Catalog) -> str:
    if name == "auto":
        return name
    try:
        return catalog.model(name, "--model").name
    except InvalidRequest as error:
        raise WrongUse("--model", name, error.remedy) from None
