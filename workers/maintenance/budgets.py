"""Keeps budgets in Redis true to the record, and tells their alerts.

A Redis that came back empty or old knows of less than was spent, and one that is told of a new
budget knows of nothing: jobs under a budget wait until the sums of the record are there. After that
no sum falls behind the ledger for longer than a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
import orjson
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.admission import budgets, scopes
from headgate.shared.admission.budgets import BudgetInForce, SpentAmount
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import fields_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost.price import from_pico, text
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.spend import DAY_MS, Sums, doubtful, span_ms, spent_on

log = logging.getLogger("headgate.budgets")

LOOK_S = 0.5
"""How soon jobs go on that wait for the sums of the record."""

EVERY_S, SHARE = 60.0, 20
"""Sums are read again after this long, and after so many times as long as it took."""

POST_S = 5.0
"""How long a webhook may take for an alert; no further one is told in a round that took as long."""

TOLD_AT_ONCE = 20


@dataclass
class BudgetUpkeep:
    """Of one worker; `url`: where alerts are told, besides the log."""

    lane: RedisBatcher
    keys: Keys
    engine: Engine
    catalog: Catalog
    url: str | None
    clock_ms: Callable[[], int]
    _past: dict[str, Sums] = field(default_factory=dict)
    _again_at: float = 0.0
    _logged: set[str] = field(default_factory=set)
    _webhook: OutageLog = field(
        default_factory=lambda: OutageLog(log, "the webhook of alerts", "they are sent again")
    )

    async def keep(self) -> None:
        """Sums that a script needs are read at once, until this is cancelled."""
        silence = OutageLog(log, "the budgets' database", "jobs under a budget wait for it")
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                wish = (self.keys.budgets(), budgets.WANTED)
                # Whose command took the wish away does the work.
                if await self.lane.send("HGET", *wish) and await self.lane.send("HDEL", *wish):
                    await self.read()
                silence.heard()
            except DBAPIError as error:
                silence.missed(error.orig or error)
            except RedisError as error:
                silence.missed(error)
            except Exception:
                log.exception("the sums of budgets were not read; it tries again")

    async def care(self) -> float:
        """Part of the sweep: no sum is behind the record, and alerts are told.

        Returns for how many seconds that was waiting for a webhook, which is no work.
        """
        if time.monotonic() >= self._again_at:
            began = time.monotonic()
            await self.read()
            took_s = time.monotonic() - began
            self._again_at = time.monotonic() + max(EVERY_S, SHARE * took_s)
        return await self.tell()

    async def read(self) -> None:
        """What the record says was spent today and this month counts at least, for every budget.

        Where a sum was never read, attempts of which nobody knows (open, or unknown) count at their
        worst price: an answer may be under way that no hold stands for.
        """
        found = await asyncio.gather(
            *(
                self.lane.send("HGETALL", key)
                for key in (self.keys.budgets(), self.keys.overrides())
            )
        )
        configured, overrides = map(fields_of, found)
        sources = budgets.sources(configured, overrides)
        at = datetime.fromtimestamp(self.clock_ms() / 1000, UTC)
        today, tomorrow = at.date(), at.date() + timedelta(days=1)
        periods = {f"{day:%Y%m%d}" for day in (today, tomorrow)}
        periods |= {f"{day:%Y%m}" for day in (today, tomorrow)}
        read = {period: await self._read_of(period, sources) for period in sorted(periods)}
        if not sources:
            return
        days = [today.replace(day=n) for n in range(1, today.day + 1)]
        sums = {f"{day:%Y%m%d}": await self._on(f"{day:%Y%m%d}") for day in days}
        day, month = f"{today:%Y%m%d}", f"{today:%Y%m}"
        totals = {day: sums[day], month: sum(sums.values(), Counter())}
        in_doubt: dict[str, Sums] = {}
        for period, done in read.items():
            if period in totals and not done.issuperset(sources):
                in_doubt[period] = await asyncio.to_thread(
                    doubtful, self.engine, self.catalog, period
                )
        told: list[SpentAmount] = []
        for period, total in totals.items():
            for scope, source in self._scopes(total, configured, overrides):
                amount = _of(scope, total)
                if source not in read[period]:
                    amount += _of(scope, in_doubt[period])
                told.append(SpentAmount(scope, period, amount))
        marks = [
            (period, source)
            for period, done in read.items()
            for source in sources
            if source not in done
        ]
        for first in range(0, max(1, len(told)), 500):
            part = told[first : first + 500]
            is_last = first + 500 >= len(told)
            await self.lane.run(budgets.balance(self.keys, part, marks if is_last else ()))

    async def _read_of(self, period: str, sources: Iterable[str]) -> set[str]:
        """Scopes whose sums have been read; those without a budget must be read anew one day."""
        key = self.keys.budget("read", period)
        read = {field.decode() for field in await self.lane.send("HKEYS", key)}
        if gone := read.difference(sources):
            await self.lane.send("HDEL", key, *sorted(gone))
        return read & set(sources)

    async def _on(self, day: str) -> Sums:
        """What callers spent on a day; days before yesterday do not change any more."""
        if day in self._past:
            return self._past[day]
        sums = await asyncio.to_thread(spent_on, self.engine, day)
        if self.clock_ms() > span_ms(day)[1] + DAY_MS:
            self._past[day] = sums
        return sums

    def _scopes(
        self, total: Sums, configured: dict[str, str], overrides: dict[str, str]
    ) -> list[tuple[str, str]]:
        """Every scope with a budget that anything was spent in, with the scope that says it."""
        tenants = {scopes.tenant_scope(tenant) for tenant, _ in total}
        users = {scopes.user_scope(tenant, user) for tenant, user in total if user}
        users &= configured.keys() | overrides.keys()
        found: list[tuple[str, BudgetInForce | None]] = [
            (scope, budgets.in_force(configured, overrides, scope))
            for scope in (scopes.GLOBAL, *sorted(tenants), *sorted(users))
        ]
        return [(scope, one.source) for scope, one in found if one is not None]

    async def tell(self) -> float:
        """Alerts are in the log, and their receiver has taken them; the others stay for later.

        Returns how many seconds that took.
        """
        raws = await self.lane.send("LRANGE", self.keys.alerts(), -TOLD_AT_ONCE, -1)
        if not raws:
            return 0.0
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=POST_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for raw in reversed(raws):
                alert = _readable(orjson.loads(raw))
                if alert["id"] not in self._logged:
                    log.warning(
                        "the budget of %s for %s is at %s %%: %s of %s USD are spent",
                        alert["scope"], alert["period"], alert["percent"], alert["spent_usd"],
                        alert["budget_usd"],
                    )  # fmt: skip
                    self._logged.add(alert["id"])
                if self.url is not None and not await self._post(session, alert):
                    break
                await self.lane.send("LREM", self.keys.alerts(), -1, raw)
                self._logged.discard(alert["id"])
                if time.monotonic() - began >= POST_S:
                    break
        return time.monotonic() - began

    async def _post(self, session: aiohttp.ClientSession, alert: dict[str, str]) -> bool:
        try:
            async with session.post(self.url or "", json=alert) as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Its words may name the address, which may hold a secret.
            status = getattr(error, "status", None)
            self._webhook.missed(OSError(f"HTTP {status}" if status else type(error).__name__))
            return False
        self._webhook.heard()
        return True


def _readable(raw: dict[str, str]) -> dict[str, str]:
    usd = {part: text(from_pico(int(raw[part]))) for part in ("budget", "spent")}
    period = raw["period"]
    return {
        "id": raw["id"],
        "event": "budget",
        "scope": scopes.shown(raw["scope"]),
        "period": "-".join(part for part in (period[:4], period[4:6], period[6:]) if part),
        "percent": f"{float(raw['share']) * 100:g}",
        "budget_usd": usd["budget"],
        "spent_usd": usd["spent"],
        "at": datetime.fromtimestamp(int(raw["at_ms"]) / 1000, UTC).isoformat(),
    }


def _of(scope: str, total: Sums) -> int:
    kind = scope.partition("/")[0]
    if kind == "global":
        return sum(total.values())
    if kind == "tenant":
        return sum(n for (tenant, _), n in total.items() if scopes.tenant_scope(tenant) == scope)
    return sum(n for who, n in total.items() if scopes.user_scope(*who) == scope)
