"""Which rows of a report a caller may see: its own, or all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.limits_rows import BucketRow, LimitsReport, PoolRow
from headgate.producer.callers.allowed import owns
from headgate.producer.callers.caller import Caller, Scope
from headgate.shared.admission.scopes import (
    key_scope,
    shown,
    tenant_scope,
    unquoted,
    user_scope,
)

VIEWS: tuple[Scope, ...] = ("view", "operate", "admin")
"""With one of these scopes a key sees the state of the whole installation."""


def sees_all(caller: Caller) -> bool:
    """Return whether the caller may see the figures of all tenants together, and of each."""
    is_of_one = caller.user is not None and not caller.any_user
    return caller.any_tenant and not is_of_one and not caller.scopes.isdisjoint(VIEWS)


def own_budgets(caller: Caller, rows: Sequence[BudgetRow]) -> list[BudgetRow]:
    """Return the budgets of the caller: of its tenant, its users and its key."""
    return [row for row in rows if _is_own(caller, row.scope)]


def own_limits(caller: Caller, found: LimitsReport) -> LimitsReport:
    """Return what a report on the caller's tenant says of the caller alone."""
    lockouts = [row for row in found.lockouts or () if owns(caller, row.tenant, row.user or None)]
    paused = [one for one in found.paused if not one.startswith("tenant/") or _is_own(caller, one)]
    return replace(
        found,
        buckets=[row for row in found.buckets if _is_own_bucket(caller, row)],
        gates=[],
        pools=[_own_pool(row) for row in found.pools if row.waiting],
        paused=paused,
        unsorted={},
        lockouts=lockouts,
    )


def _is_own(caller: Caller, scope: str) -> bool:
    """Return whether the scope, as an operator writes it, is one of the caller."""
    if scope in (shown(tenant_scope(caller.tenant)), key_scope(caller.key_id)):
        return True
    if caller.user is not None and not caller.any_user:
        return scope == shown(user_scope(caller.tenant, caller.user))
    return scope.startswith(shown(user_scope(caller.tenant, "")))


def _is_own_bucket(caller: Caller, row: BucketRow) -> bool:
    """Return the same of a bucket; those of tiers are named `tier/NAME/TENANT/USER[/MODEL]`."""
    kind, _, name = row.scope.partition("/")
    if kind != "tier":
        return _is_own(caller, row.scope)
    _, tenant, user, *_ = [*name.split("/"), "", ""]
    return owns(caller, unquoted(tenant), unquoted(user))


def _own_pool(row: PoolRow) -> PoolRow:
    """Return the waiting jobs of the caller's tenant, without what is of all tenants."""
    return replace(row, oldest_age_s=None, running=0, held_tokens=0)
