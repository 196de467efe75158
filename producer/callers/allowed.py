"""What a caller may do: scopes, models, and the tenant and user that a call may name.

Every function decides by plain values, and raises KeyRefused with status 403.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from headgate.producer.callers.caller import Caller, Scope
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.errors import InvalidRequest, shown


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raise KeyRefused if the key does not have this scope."""
    if scope not in caller.scopes:
        raise KeyRefused(403, "scope", f"the key does not have the scope {scope}")


def may_use(caller: Caller, name: str, catalog: Catalog) -> bool:
    """Return whether the key may name this model: a name of the catalog, `auto`, or a snapshot.

    A name that the catalog does not know is let through: submit refuses it with a better text.
    """
    if caller.models is None or name in caller.models:
        return True
    try:
        model = catalog.model(name)
    except InvalidRequest:
        return name != "auto"
    return not caller.models.isdisjoint({model.name, model.variant_of})


def require_models(caller: Caller, names: Iterable[str], catalog: Catalog) -> None:
    """Raise KeyRefused if the key may not name one of these models.

    `names`: the model that the call names, or HEADGATE_MODEL, and its own list of fallbacks. The
    fallbacks of the catalog are the operator's choice, and not looked at.
    """
    for name in names:
        if not may_use(caller, name, catalog):
            raise KeyRefused(403, "model", f"the key does not allow the model {shown(name)}")


def identity(
    caller: Caller, tenant: str | None = None, user: str | None = None
) -> tuple[str, str | None]:
    """Return tenant and user of a call that names these, or does not (None).

    Raises KeyRefused where the key has others and does not let its calls name them.
    """
    if tenant is not None and tenant != caller.tenant and not caller.any_tenant:
        raise KeyRefused(403, "tenant", f"the key does not allow the tenant {shown(tenant)}")
    own = caller.user
    if user is not None and user != own and not caller.any_user:
        raise KeyRefused(403, "user", f"the key does not allow the user {shown(user)}")
    return caller.tenant if tenant is None else tenant, own if user is None else user


def narrowed(caller: Caller, tenant: str | None, user: str | None) -> Caller:
    """Return the caller as one of this tenant and user, where the call names them.

    Raises what `identity` raises.
    """
    own_tenant, own_user = identity(caller, tenant, user)
    if tenant is not None:
        caller = replace(caller, tenant=own_tenant, any_tenant=False)
    if user is not None:
        caller = replace(caller, user=own_user, any_user=False)
    return caller


def owns(caller: Caller, tenant: str, user: str | None) -> bool:
    """Return whether a job of this tenant and user is the caller's to see.

    A key with a user sees the jobs of that user; a key without sees those of its tenant, or all if
    its calls may name any.
    """
    if tenant != caller.tenant and not caller.any_tenant:
        return False
    return caller.user is None or caller.any_user or user == caller.user
