"""Reads how much of each budget is spent and held, today and this month; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from headgate.producer.installation import Installation
from headgate.shared.admission import budgets
from headgate.shared.admission import scopes as scopes_
from headgate.shared.admission.budgets import BudgetInForce
from headgate.shared.broker.script import fields_of
from headgate.shared.cost.price import usd_text

MOST_SCANS = 200
"""How many pages of 1,000 keys are scanned for tenants under the budget of every tenant."""

State = Literal["open", "soft", "spent", "unread"]


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """One budget in one period (UTC), with amounts in USD; `share`: the part that is spent.

    `state`: `open`; `soft` (jobs of low priority wait); `spent` (all jobs stop); `unread` (jobs
    wait until a worker has added up the ledger). `whence`: the catalog, or an operator (set).
    """

    scope: str
    period: str
    budget_usd: str
    spent_usd: str
    held_usd: str
    share: float | None
    state: State
    whence: Literal["catalog", "set"]

    def as_json(self) -> dict[str, Any]:
        """Return the row as `--json` prints it."""
        fields = asdict(self)
        return {"from" if name == "whence" else name: value for name, value in fields.items()}


def report(at: Installation) -> list[BudgetRow]:
    """Return a row for each budget and period.

    Of tenants under the budget of every tenant, only those that have spent something.
    """
    configured = fields_of(_hash(at, at.keys.budgets())) or budgets.texts(at.catalog)
    overrides = fields_of(_hash(at, at.keys.overrides()))
    found: Any = at.redis.time()
    now = datetime.fromtimestamp(int(found[0]), UTC)
    periods = (f"{now:%Y%m%d}", f"{now:%Y%m}")
    rows = []
    for scope in _scopes(at, configured, overrides, periods):
        budget = budgets.in_force(configured, overrides, scope)
        for period in periods:
            if budget is not None and budget.of(period) is not None:
                rows.append(_row(at, scope, period, budget))
    return rows


def _scopes(
    at: Installation,
    configured: Mapping[str, str],
    overrides: Mapping[str, str],
    periods: tuple[str, str],
) -> list[str]:
    sources = budgets.sources(configured, overrides)
    scopes = {*sources} - {scopes_.EVERY_TENANT}
    scopes |= {scope for scope in overrides if scope.startswith("tenant/")}
    if scopes_.EVERY_TENANT in sources:
        for period in periods:
            begin, end = at.keys.budget("tenant/\n", period).split("\n")
            cursor: Any = 0
            for _ in range(MOST_SCANS):
                scan: Any = at.redis.scan(cursor, match=f"{begin}*{end}", count=1000)
                cursor, names = scan
                scopes |= {f"tenant/{n.decode()[len(begin) : -len(end)]}" for n in names}
                if cursor == 0:
                    break
        scopes = scopes - {scopes_.EVERY_TENANT} or {scopes_.EVERY_TENANT}
    # Overrides also name scopes of other kinds, which have no budget.
    kinds = ("global", "tenant", "user", "key")
    known = [scope for scope in scopes if scope.partition("/")[0] in kinds]
    return sorted(known, key=lambda scope: (kinds.index(scope.partition("/")[0]), scope))


def _row(at: Installation, scope: str, period: str, budget: BudgetInForce) -> BudgetRow:
    limit = budget.of(period) or 0
    found: Any = at.redis.hmget(at.keys.budget(scope, period), "spent", "held")
    spent, held = (max(0, int(amount or 0)) for amount in found)
    is_read = at.redis.hexists(at.keys.budget("read", period), budget.source)
    state: State = "open"
    if not is_read:
        state = "unread"
    elif spent >= limit * budget.hard:
        state = "spent"
    elif spent >= limit * budget.soft:
        state = "soft"
    return BudgetRow(
        scopes_.shown(scope),
        "-".join(part for part in (period[:4], period[4:6], period[6:]) if part),
        usd_text(limit),
        usd_text(spent),
        usd_text(held),
        round(spent / limit, 4) if limit else None,
        state,
        "set" if budget.is_set else "catalog",
    )


def _hash(at: Installation, key: str) -> Any:
    return at.redis.hgetall(key)
