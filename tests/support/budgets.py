"""Budgets as the scripts keep them: set, read and moved on by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from headgate.shared.admission.budgets import KNOWN, SpentAmount, balance
from headgate.shared.admission.grant import Held
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import script
from headgate.workers.stages import hold
from tests.support.governor_model import Governor
from tests.support.waiting_rooms import TICKET

USD = 10**12


class Treasury(Governor):
    """A broker whose callers have budgets."""

    def budget(self, scopes: Mapping[str, str] | None = None, *, read: bool = True) -> None:
        """These budgets count, and no others; `read`: their sums are those of the record."""
        self.client.delete(self.keys.budgets())
        texts: dict[Any, Any] = {KNOWN: "test", **(scopes or {})}
        self.client.hset(self.keys.budgets(), mapping=texts)
        if read:
            marks = [(period, scope) for period in self.periods() for scope in scopes or ()]
            script.run(self.client, balance(self.keys, [], marks))

    def override(self, scope: str, text: str) -> None:
        """An operator sets the budget of a scope; those who wait are tried again."""
        self.client.hset(self.keys.overrides(), scope, text)
        self.resume("")

    def periods(self) -> tuple[str, str]:
        """Today and this month, in UTC."""
        at = datetime.fromtimestamp(self.now_ms() / 1000, UTC)
        return at.strftime("%Y%m%d"), at.strftime("%Y%m")

    def book(self, scope: str, period: str | None = None) -> tuple[int, int]:
        """What is spent and held in a scope, today if no period is named."""
        found: Any = self.client.hmget(
            self.keys.budget(scope, period or self.periods()[0]), "spent", "held"
        )
        return int(found[0] or 0), int(found[1] or 0)

    def at_least(self, scope: str, spent: int) -> None:
        """The record knows of this much."""
        sums = [SpentAmount(scope, self.periods()[0], spent)]
        script.run(self.client, balance(self.keys, sums))

    def pay(self, job_id: str, grant: Held, cost: int | None) -> bool:
        """The attempt was answered at this price."""
        command = hold.settle(
            self.keys, job_id=job_id, grant=grant.text, used=(1, 1), cost_pico_usd=cost
        )
        return script.run(self.client, command)

    def pay_together(
        self, *ends: tuple[str, Held, tuple[int, int] | None, int | None]
    ) -> list[int]:
        """These attempts ended at these uses and prices, all told in one call."""
        commands = [
            hold.settle(self.keys, job_id=job_id, grant=grant.text, used=used, cost_pico_usd=cost)
            for job_id, grant, used, cost in ends
        ]
        tails = [word for one in commands for word in one.by_text()[one.tail_at :]]
        head = commands[0].by_text()[: commands[0].tail_at]
        execute: Callable[..., Any] = self.client.execute_command
        return [int(one) for one in execute(*head, *tails)]

    def alerts(self) -> list[bytes]:
        """Those that are to be told, the oldest first."""
        found: Any = self.client.lrange(self.keys.alerts(), 0, -1)
        return list(reversed(found))

    def day_before(self, day: str) -> str:
        """The name of the day before this one."""
        at = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) - timedelta(days=1)
        return at.strftime("%Y%m%d")

    def a_day_later(self) -> None:
        """It is tomorrow: all that counted for today counts for yesterday."""
        today = self.periods()[0]
        before = self.day_before(today)
        for name in self._names(f"headgate:budget:*:{today}"):
            if ":budget:read:" in name:
                continue
            older = name.removesuffix(today) + before
            for part, amount in self._hash(name).items():
                if part in ("spent", "held"):
                    self.client.hincrby(older, part, int(amount))
            self.client.pexpire(older, 86_400_000)
            self.client.delete(name)
        for job_id, grant in self._hash(self.keys.holds()).items():
            self.client.hset(self.keys.holds(), job_id, grant.replace(f":{today}", f":{before}"))
        self.advance(60_000)


def ticket(worst: int | None, **fields: Any) -> Ticket:
    """A ticket that may cost this many pico-USD."""
    return replace(TICKET, upper_bound_pico_usd=worst, **fields)
