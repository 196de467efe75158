"""Keeps the sums of budgets in Redis true to the database.

A Redis that came back empty or old knows less than was spent. So does a Redis that has just got a
new budget. Jobs under such a budget wait until a worker has added up the database's attempts. After
that no sum is behind the database for longer than a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.admission import budgets, scopes
from headgate.shared.admission.budgets import BudgetInForce, SpentAmount
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import fields_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.spend import Sums, span_ms, spent_on, unsettled

log = logging.getLogger("headgate.budgets")

LOOK_S = 0.5
"""How often a worker looks whether jobs wait for sums."""

EVERY_S, SHARE = 60.0, 20
"""Sums are added up again after this long, or after `SHARE` times as long as it took."""

PART = 500
"""Sums in one call of the script."""


@dataclass
class BudgetUpkeep:
    """Adds up what was spent, for the budgets of one worker's catalog."""

    batcher: RedisBatcher
    keys: Keys
    engine: Engine
    catalog: Catalog
    clock_ms: Callable[[], int]
    _past: dict[str, Sums] = field(default_factory=dict)
    _again_at: float = 0.0

    async def keep(self) -> None:
        """Write the sums whenever a script asks for them, until cancelled."""
        outage_log = OutageLog(log, "the database of budgets", "jobs under a budget wait for it")
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                wanted = (self.keys.budgets(), budgets.WANTED)
                # The worker whose HDEL removes the field does the work.
                asked = await self.batcher.send("HGET", *wanted)
                if asked and await self.batcher.send("HDEL", *wanted):
                    await self.write_sums()
                outage_log.answered()
            except DBAPIError as error:
                outage_log.failed(error.orig or error)
            except RedisError as error:
                outage_log.failed(error)
            except Exception:
                log.exception("the sums of budgets were not written; trying again")

    async def refresh(self) -> None:
        """Write the sums if the last time is long ago."""
        if time.monotonic() < self._again_at:
            return
        began = time.monotonic()
        await self.write_sums()
        took_s = time.monotonic() - began
        self._again_at = time.monotonic() + max(EVERY_S, SHARE * took_s)

    async def write_sums(self) -> None:
        """Raise every budget's sums of today and this month to what the database says.

        A sum that was never written also gets the upper bound of attempts that are open or whose
        billing is unknown: an answer may be under way that no hold counts.
        """
        configured, overrides = await self._budgets()
        sources = budgets.sources(configured, overrides)
        at = datetime.fromtimestamp(self.clock_ms() / 1000, UTC)
        today, tomorrow = at.date(), at.date() + timedelta(days=1)
        periods = {name for day in (today, tomorrow) for name in (_day(day), _month(day))}
        written = {period: await self._written(period, sources) for period in sorted(periods)}
        if not sources:
            return
        totals = await self._totals(today)
        open_sums = {
            period: await asyncio.to_thread(unsettled, self.engine, self.catalog, period)
            for period in totals
            if not written[period].issuperset(sources)
        }
        spent: list[SpentAmount] = []
        for period, total in totals.items():
            for scope, source in _budgeted(total, configured, overrides):
                amount = _sum_of(scope, total)
                if source not in written[period]:
                    amount += _sum_of(scope, open_sums[period])
                spent.append(SpentAmount(scope, period, amount))
        marks = [
            (period, source)
            for period, done in written.items()
            for source in sources
            if source not in done
        ]
        await self._write(spent, marks)

    async def _budgets(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the budgets of the catalog, and those that operators set."""
        names = (self.keys.budgets(), self.keys.overrides())
        found = await asyncio.gather(*(self.batcher.send("HGETALL", name) for name in names))
        configured, overrides = map(fields_of, found)
        return configured, overrides

    async def _written(self, period: str, sources: Iterable[str]) -> set[str]:
        """Return the scopes whose sums are written; forget those that have no budget any more."""
        key = self.keys.budget("read", period)
        written = {field.decode() for field in await self.batcher.send("HKEYS", key)}
        if gone := written.difference(sources):
            await self.batcher.send("HDEL", key, *sorted(gone))
        return written & set(sources)

    async def _totals(self, today: date) -> dict[str, Sums]:
        """Return what callers spent today and this month, by period."""
        days = [today.replace(day=n) for n in range(1, today.day + 1)]
        sums = [await self._spent_on(_day(day)) for day in days]
        return {_day(today): sums[-1], _month(today): sum(sums, Counter())}

    async def _spent_on(self, day: str) -> Sums:
        """Return what callers spent on a day; days before yesterday are read once."""
        if day in self._past:
            return self._past[day]
        sums = await asyncio.to_thread(spent_on, self.engine, day)
        if self.clock_ms() > span_ms(day)[1] + DAY_MS:
            self._past[day] = sums
        return sums

    async def _write(self, spent: Sequence[SpentAmount], marks: Sequence[tuple[str, str]]) -> None:
        """Write the sums, then mark the scopes as written, with the last part."""
        for first in range(0, max(1, len(spent)), PART):
            is_last = first + PART >= len(spent)
            await self.batcher.run(
                budgets.balance(self.keys, spent[first : first + PART], marks if is_last else ())
            )


def _day(day: date) -> str:
    return f"{day:%Y%m%d}"


def _month(day: date) -> str:
    return f"{day:%Y%m}"


def _budgeted(
    total: Sums, configured: dict[str, str], overrides: dict[str, str]
) -> list[tuple[str, str]]:
    """Return every scope with spending and a budget, with the scope that sets the budget."""
    tenants = {scopes.tenant_scope(tenant) for tenant, _, _ in total}
    users = {scopes.user_scope(tenant, user) for tenant, user, _ in total if user}
    users |= {scopes.key_scope(key) for *_, key in total if key}
    users &= configured.keys() | overrides.keys()
    found: list[tuple[str, BudgetInForce | None]] = [
        (scope, budgets.in_force(configured, overrides, scope))
        for scope in (scopes.GLOBAL, *sorted(tenants), *sorted(users))
    ]
    return [(scope, one.source) for scope, one in found if one is not None]


def _sum_of(scope: str, total: Sums) -> int:
    """Return what the scope spent, in pico-USD."""
    kind = scope.partition("/")[0]
    if kind == "global":
        return sum(total.values())
    if kind == "tenant":
        return sum(n for (tenant, *_), n in total.items() if scopes.tenant_scope(tenant) == scope)
    if kind == "key":
        return sum(n for (*_, key), n in total.items() if scopes.key_scope(key) == scope)
    return sum(n for (*who, _), n in total.items() if scopes.user_scope(*who) == scope)
