"""What binds the callers of jobs: the limits and budgets of their tenants, users and tiers.

The fetch script decides by the same figures, in `shared/broker/lua/lib/{bucket,money}.lua`. Nothing
here does I/O.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from headgate.producer.waits.levels import BucketLevel, levels, limits_in_force
from headgate.shared.admission import budgets
from headgate.shared.admission.budgets import BudgetInForce
from headgate.shared.admission.overrides import texts_of
from headgate.shared.admission.scopes import (
    GLOBAL,
    key_scope,
    quoted,
    tenant_scope,
    tier_scope,
    user_scope,
)
from headgate.shared.admission.ticket import Ticket
from headgate.shared.catalog.schema import WAIT


@dataclass(frozen=True, slots=True)
class CallerBucket:
    """The limits of one scope, with the bucket of one caller.

    `of_tenant`: all users of the tenant share the bucket; otherwise it is the user's own.
    """

    scope: str
    bucket: str
    of_tenant: bool
    levels: Sequence[BucketLevel]


@dataclass(frozen=True, slots=True)
class BudgetWait:
    """A budget that keeps a job from starting.

    `why`: `soft` (its soft share is spent, and the job has low priority), `held` (running jobs hold
    the rest), or `unread` (nobody has added up the ledger yet). `until_ms`: when the next period
    begins; None if it may be any moment.
    """

    scope: str
    period: str
    why: Literal["soft", "held", "unread"]
    budget: BudgetInForce
    until_ms: int | None = None


Sums = tuple[int, int]
"""What is spent and held of a budget, in pico-USD."""


@dataclass(frozen=True, slots=True)
class CallerFigures:
    """The texts of limits and budgets by scope, as Redis has them, and the state of the buckets.

    `sums`: by scope and period. `read`: periods and scopes whose sums were read from the ledger.
    `periods`: the names of the day and the month.
    """

    now_ms: int
    limits: Mapping[str, str]
    overrides: Mapping[str, str]
    budgets: Mapping[str, str] = field(default_factory=dict)
    buckets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sums: Mapping[tuple[str, str], Sums] = field(default_factory=dict)
    read: Collection[tuple[str, str]] = ()
    periods: tuple[str, str] = ("", "")

    def limits_of(self, ticket: Ticket) -> list[CallerBucket]:
        """Return the limits that bind the caller of this ticket when its job starts."""
        found = []
        for scope, bucket in scopes_of(ticket):
            in_force = limits_in_force(*texts_of(self.limits, self.overrides, scope))
            fields = self.buckets.get(bucket, {})
            if of_bucket := levels(in_force, fields, self.now_ms, of_provider=False):
                found.append(CallerBucket(scope, bucket, scope.startswith("tenant/"), of_bucket))
        return found

    def budget_wait(self, ticket: Ticket) -> BudgetWait | None:
        """Return the budget that keeps this job waiting; None if none does.

        A job for which no money is left at all does not wait: it ends.
        """
        waits = list(self._budget_waits(ticket))
        urgent = [one for one in waits if one.why != "soft"]
        return max(urgent or waits, key=lambda one: one.until_ms or 0, default=None)

    def _budget_waits(self, ticket: Ticket) -> Iterator[BudgetWait]:
        scopes = [GLOBAL, tenant_scope(ticket.tenant)]
        scopes += [user_scope(ticket.tenant, ticket.user)] if ticket.user else []
        scopes += [key_scope(ticket.key_id)] if ticket.key_id else []
        for scope in scopes:
            budget = budgets.in_force(self.budgets, self.overrides, scope)
            for period in self.periods if budget is not None else ():
                if budget is None or (limit := budget.of(period)) is None:
                    continue
                spent, held = self.sums.get((scope, period), (0, 0))
                bound = ticket.upper_bound_pico_usd or 0
                if (period, budget.source) not in self.read:
                    yield BudgetWait(scope, period, "unread", budget)
                elif spent + bound > limit * budget.hard:
                    continue
                elif spent + held + bound > limit * budget.hard:
                    yield BudgetWait(scope, period, "held", budget)
                elif self.stops_softly(ticket, budget) and spent >= limit * budget.soft:
                    yield BudgetWait(scope, period, "soft", budget, period_end_ms(period))

    @staticmethod
    def stops_softly(ticket: Ticket, budget: BudgetInForce) -> bool:
        """Return whether the job waits once the soft share of the budget is spent."""
        return ticket.priority == "bulk" and budget.at_soft == WAIT


def scopes_of(ticket: Ticket) -> Iterator[tuple[str, str]]:
    """Yield each scope whose limits may bind the caller, with the name of the caller's bucket.

    Limits of users and tiers were taken at submit if the caller asked to be refused.
    """
    tenant = tenant_scope(ticket.tenant)
    yield tenant, tenant
    if ticket.paid:
        return
    if ticket.key_id:
        yield key_scope(ticket.key_id), key_scope(ticket.key_id)
    who = f"{quoted(ticket.tenant)}/{quoted(ticket.user)}"
    if ticket.user:
        user = user_scope(ticket.tenant, ticket.user)
        yield user, user
    if ticket.tier:
        tier = tier_scope(ticket.tier)
        yield tier, f"{tier}/{who}"
        for model in dict.fromkeys((ticket.model, ticket.variant_of)):
            if model:
                yield tier_scope(ticket.tier, model), f"{tier}/{who}/{model}"


def period_end_ms(period: str) -> int:
    """Return the end of a day (`20261121`) or a month (`202611`) in UTC, as Unix ms."""
    if len(period) == len("20261121"):
        end = datetime.strptime(period, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    else:
        first = datetime.strptime(period, "%Y%m").replace(tzinfo=UTC)
        end = (first + timedelta(days=31)).replace(day=1)
    return int(end.timestamp() * 1000)
