"""Budgets as the scripts read them: a scope, such as `tenant/acme`, to `usd_per_day=10 hard=1`.

Scopes: `global`, `tenant/NAME`, `tenant/*` (each tenant without an entry of its own, by itself) and
`user/TENANT/NAME`, percent-encoded. Names and rules: the head of `lua/money.lua`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
"""Fields beside the scopes: which catalog wrote them; a script needs sums of the record."""


def texts(catalog: Catalog) -> dict[str, str]:
    """Every scope to which the catalog gives a budget, and the catalog itself under KNOWN."""
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
    """What binds one scope. Amounts in pico-USD; None does not bind. `source`: who says it."""

    day: int | None
    month: int | None
    soft: float
    hard: float
    alerts: tuple[float, ...]
    at_soft: str
    source: str
    is_set: bool

    def of(self, period: str) -> int | None:
        """The budget of a day (`20261121`) or a month (`202611`)."""
        return self.day if len(period) == 8 else self.month


def in_force(
    configured: Mapping[str, str], overrides: Mapping[str, str], scope: str
) -> BudgetInForce | None:
    """The budget of a scope with an operator's word laid over the catalog's, as the scripts do it.

    None where it has none.
    """
    fallback = EVERY_TENANT if scope.startswith("tenant/") else scope
    own, set_ = configured.get(scope), overrides.get(scope, "")
    laid = [own if own is not None else configured.get(fallback, "")]
    if own is None:
        laid.append(overrides.get(fallback, ""))
    given: dict[str, str] = {}
    for text in (*laid, set_):
        for name, value in re.findall(r"([a-z_]+)=(\S+)", text):
            if value == "none":
                given.pop(name, None)
            else:
                given[name] = value
    if not given.keys() & {"usd_per_day", "usd_per_month"}:
        return None
    is_own = own is not None or "usd_per" in set_
    from_set = "usd_per" in set_ or (own is None and "usd_per" in overrides.get(fallback, ""))
    shares = given.get("alerts")
    return BudgetInForce(
        day=_pico(given.get("usd_per_day")),
        month=_pico(given.get("usd_per_month")),
        soft=float(given.get("soft", SOFT)),
        hard=float(given.get("hard", HARD)),
        alerts=ALERTS if shares is None else tuple(map(float, re.findall(r"[\d.]+", shares))),
        at_soft=given.get("at_soft", WAIT),
        source=scope if is_own else fallback,
        is_set=from_set,
    )


def _pico(usd: str | None) -> int | None:
    return None if usd is None else int(float(usd) * 1e12 + 0.5)


def sources(configured: Mapping[str, str], overrides: Mapping[str, str]) -> list[str]:
    """Every scope that says a budget, `tenant/*` among them."""
    named = {**configured, **overrides}.keys() - {KNOWN, WANTED}
    found = (in_force(configured, overrides, scope) for scope in named)
    return sorted({one.source for one in found if one is not None})


@dataclass(frozen=True, slots=True)
class SpentAmount:
    """What the record knows of a caller in a period, in pico-USD. `scope`: with its names."""

    scope: str
    period: str
    pico_usd: int


def balance(
    keys: Keys, sums: Sequence[SpentAmount], marks: Sequence[tuple[str, str]] = ()
) -> Command[Any]:
    """At least these sums count as spent; `marks`: period and scope of what has been read."""
    args: list[Word] = [keys.prefix, len(sums)]
    for one in sums:
        args += [one.scope, one.period, one.pico_usd]
    for period, scope in marks:
        args += [period, scope]
    return compose("balance", (), args, lambda reply: reply)
