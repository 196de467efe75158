"""How long the waiting jobs of callers take by the callers' own limits and budgets. Pure.

It counts on what is known now: no further jobs, answers as long as usual, and prices of today.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headgate.producer.waits.callers import CallerBucket, CallerFigures, period_end_ms
from headgate.producer.waits.levels import Load, drain_s
from headgate.shared.admission import budgets
from headgate.shared.admission.budgets import BudgetInForce
from headgate.shared.admission.scopes import GLOBAL, key_scope, tenant_scope, unquoted, user_scope
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker.figures import DAY_MS

MONTH_MS = 30 * DAY_MS


@dataclass(frozen=True, slots=True)
class CallerJobs:
    """The waiting jobs of one user in one waiting queue. Names are quoted, as keys hold them.

    `ticket`: of the first of them. `load`: of all. `cost_pico_usd`: what all will probably cost;
    None if no price is known.
    """

    tenant: str
    user: str
    waiting: int
    ticket: Ticket
    load: Load
    cost_pico_usd: float | None = None


@dataclass(slots=True)
class _Shared:
    """Jobs that share a bucket, with the tenants that they belong to."""

    bucket: CallerBucket
    load: Load = field(default_factory=Load)
    tenants: set[str] = field(default_factory=set)


def buckets_of(jobs: Iterable[CallerJobs], callers: CallerFigures) -> dict[str, float]:
    """Return, by the name of each bucket of these callers, the seconds that it takes."""
    return {
        name: drain_s(one.load, [one.bucket.levels], callers.now_ms) or 0.0
        for name, one in _by_bucket(jobs, callers).items()
    }


def drains(jobs: Sequence[CallerJobs], callers: CallerFigures) -> dict[str, float]:
    """Return, by quoted tenant, the seconds until its last job may start; 0: nothing limits it."""
    found: dict[str, float] = defaultdict(float)
    for one in _by_bucket(jobs, callers).values():
        wait_s = drain_s(one.load, [one.bucket.levels], callers.now_ms) or 0.0
        for tenant in one.tenants:
            found[tenant] = max(found[tenant], wait_s)
    by_limits = dict(found)
    for tenant, wait_s, rest in _by_budgets(jobs, callers):
        # In the last period the rest of its jobs starts as fast as its limits let it.
        found[tenant] = max(found[tenant], wait_s + rest * by_limits.get(tenant, 0.0))
    return found


def _by_bucket(jobs: Iterable[CallerJobs], callers: CallerFigures) -> dict[str, _Shared]:
    found: dict[str, _Shared] = {}
    for one in jobs:
        for bucket in callers.limits_of(one.ticket):
            shared = found.setdefault(bucket.bucket, _Shared(bucket))
            shared.load += one.load
            shared.tenants.add(one.tenant)
    return found


def budget_scopes(jobs: Iterable[CallerJobs], callers: CallerFigures) -> dict[str, BudgetInForce]:
    """Return the scopes whose budget makes some of these jobs wait once it is spent."""
    found: dict[str, BudgetInForce] = {}
    for one in jobs:
        for scope in _scopes(one):
            budget = budgets.in_force(callers.budgets, callers.overrides, scope)
            if budget is not None and callers.stops_softly(one.ticket, budget):
                found[scope] = budget
    return found


def _scopes(jobs: CallerJobs) -> Iterator[str]:
    yield GLOBAL
    yield tenant_scope(unquoted(jobs.tenant))
    if jobs.user:
        yield user_scope(unquoted(jobs.tenant), unquoted(jobs.user))
    if jobs.ticket.key_id:
        yield key_scope(jobs.ticket.key_id)


def _by_budgets(
    jobs: Sequence[CallerJobs], callers: CallerFigures
) -> Iterator[tuple[str, float, float]]:
    """Yield tenant, seconds until the last period that its jobs need, and their share in that."""
    for scope, budget in budget_scopes(jobs, callers).items():
        bound = [
            one
            for one in jobs
            if scope in _scopes(one) and callers.stops_softly(one.ticket, budget)
        ]
        cost = sum(one.cost_pico_usd or 0.0 for one in bound)
        for period in callers.periods:
            limit = budget.of(period)
            if limit is None:
                continue
            spent, _ = callers.sums.get((scope, period), (0, 0))
            wait_s, rest = wait_for_money(cost, limit * budget.soft, spent, period, callers.now_ms)
            for tenant in {one.tenant for one in bound} if wait_s else ():
                yield tenant, wait_s, rest


def wait_for_money(
    cost: float, limit: float, spent: float, period: str, now_ms: int
) -> tuple[float, float]:
    """Return the seconds until the last period that this cost needs, and the share left for it.

    `limit` and `spent` are those of the period (`20261121`, `202611`); amounts are in pico-USD.
    Without a price the jobs go on in the next period.
    """
    left = limit - spent
    if left > 0 and cost <= left:
        return 0.0, 1.0
    more = cost - max(0.0, left)
    periods = max(1, math.ceil(more / limit)) if limit > 0 else 1
    length_ms = DAY_MS if len(period) == len("20261121") else MONTH_MS
    wait_ms = period_end_ms(period) - now_ms + (periods - 1) * length_ms
    rest = (more - (periods - 1) * limit) / cost if cost > 0 else 1.0
    return max(0.0, wait_ms / 1000), min(1.0, max(0.0, rest))


def largest(amounts: Mapping[str, float], n: int) -> list[str]:
    """Return the `n` names with the largest amounts."""
    return sorted(amounts, key=lambda name: -amounts[name])[:n]
