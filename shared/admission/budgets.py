"""Budgets as the scripts read them: scopes, such as `tenant/acme`, to `usd_per_day=10 hard=1`.

The scopes are `global`, `tenant/NAME`, `user/TENANT/NAME` and `tenant/*`, which holds for each
tenant without an entry of its own, separately. Names are percent-encoded. The head of
`shared/broker/lua/lib/money.lua` explains the figures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.shared.admission.overrides import Figure, overlay, texts_of
from headgate.shared.admission.scopes import (
    EVERY_TENANT,
    GLOBAL,
    tenant_scope,
    user_named,
    user_scope,
)
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import ALERTS, HARD, SOFT, WAIT, Budget

KNOWN, WANTED = "catalog", "wanted"
"""Fields beside the scopes: the catalog's digest; whether a script needs the sums of the ledger."""


def texts(catalog: Catalog) -> dict[str, str]:
    """Return the budget of every scope that has one, and the catalog's digest under KNOWN."""
    found = {GLOBAL: _text(catalog.budget)}
    every = catalog.tenants["*"].budget if "*" in catalog.tenants else Budget()
    found[EVERY_TENANT] = _text(every)
    for tenant in catalog.tenants.values():
        if tenant.name != "*" and tenant.budget != Budget():
            given = {**every.model_dump(exclude_none=True)}
            given |= tenant.budget.model_dump(exclude_none=True)
            found[tenant_scope(tenant.name)] = _text(Budget(**given))
    for user in catalog.users.values():
        found[user_scope(*user_named(user.name))] = _text(user.budget)
    return {scope: text for scope, text in found.items() if text} | {KNOWN: catalog.digest}


def _text(budget: Budget) -> str:
    words = []
    for name, value in budget.model_dump(exclude_none=True).items():
        if isinstance(value, tuple):
            value = ",".join(_share(share) for share in value) or "-"
        words.append(f"{name}={_share(value) if isinstance(value, float) else value}")
    return " ".join(words)


def _share(share: float) -> str:
    return f"{share:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class BudgetInForce:
    """The budget that binds one scope. `day` and `month` are pico-USD; None does not bind.

    `source` is the scope that it comes from; `is_set` if an operator has set an amount.
    """

    day: int | None
    month: int | None
    soft: float
    hard: float
    alerts: tuple[float, ...]
    at_soft: str
    source: str
    is_set: bool

    def of(self, period: str) -> int | None:
        """Return the pico-USD of a day (`20261121`) or a month (`202611`)."""
        return self.day if len(period) == 8 else self.month


def in_force(
    configured: Mapping[str, str], overrides: Mapping[str, str], scope: str
) -> BudgetInForce | None:
    """Return the budget of a scope, with the operator's figures over the catalog's; None for none.

    A tenant without an entry in the catalog has the budget of `tenant/*`.
    """
    catalog, operator = texts_of(configured, overrides, scope)
    figures = overlay(catalog, operator)
    if not figures.keys() & {"usd_per_day", "usd_per_month"}:
        return None
    is_own = scope in configured or "usd_per" in overrides.get(scope, "")
    from_every = not is_own and scope.startswith("tenant/")
    alerts = figures.get("alerts")
    return BudgetInForce(
        day=_pico(figures.get("usd_per_day")),
        month=_pico(figures.get("usd_per_month")),
        soft=_share_of(figures.get("soft"), SOFT),
        hard=_share_of(figures.get("hard"), HARD),
        alerts=ALERTS if alerts is None else tuple(map(float, re.findall(r"[\d.]+", alerts.text))),
        at_soft=figures["at_soft"].text if "at_soft" in figures else WAIT,
        source=EVERY_TENANT if from_every else scope,
        is_set="usd_per" in operator,
    )


def _pico(usd: Figure | None) -> int | None:
    # As the scripts do it, in floats: so both have the same pico-USD.
    return None if usd is None else int(float(usd.text) * 1e12 + 0.5)


def _share_of(figure: Figure | None, default: float) -> float:
    return default if figure is None else float(figure.text)


def sources(configured: Mapping[str, str], overrides: Mapping[str, str]) -> list[str]:
    """Return every scope that gives a budget, `tenant/*` among them, in alphabetical order."""
    named = {**configured, **overrides}.keys() - {KNOWN, WANTED}
    found = (in_force(configured, overrides, scope) for scope in named)
    return sorted({one.source for one in found if one is not None})


@dataclass(frozen=True, slots=True)
class SpentAmount:
    """What the ledger says a scope has spent in a period (`20261121` or `202611`), in pico-USD."""

    scope: str
    period: str
    pico_usd: int


def balance(
    keys: Keys, sums: Sequence[SpentAmount], marks: Sequence[tuple[str, str]] = ()
) -> Command[Any]:
    """Make the scripts count at least these sums as spent.

    `marks` are the periods and scopes whose sums have been read from the ledger.
    """
    args: list[Word] = [keys.prefix, len(sums)]
    for one in sums:
        args += [one.scope, one.period, one.pico_usd]
    for period, scope in marks:
        args += [period, scope]
    return compose("balance", (), args, lambda reply: reply)
