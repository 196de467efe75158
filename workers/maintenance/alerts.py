"""Sends the alerts of budgets, to the log and to a webhook."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from headgate.shared.admission import scopes
from headgate.shared.broker.keys import Keys
from headgate.shared.cost.price import usd_text
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.redis_batcher import RedisBatcher

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("headgate.budgets")

POST_S = 5.0
"""How long the webhook may take for an alert. A round that has taken so long sends no more."""

ALERTS_PER_ROUND = 20

CLAIM_MS = 60_000
"""How long an alert belongs to the worker that began to send it. This outlasts every round."""


@dataclass
class Alerts:
    """The alerts that wait in Redis. `url` is the webhook, if there is one besides the log.

    `owner` names this worker: two workers may both do maintenance for a moment, but each alert is
    sent by one.
    """

    batcher: RedisBatcher
    keys: Keys
    url: str | None
    owner: str
    _logged: set[str] = field(default_factory=set)
    _webhook_log: OutageLog = field(
        default_factory=lambda: OutageLog(log, "the webhook of alerts", "they are sent again")
    )

    async def send(self) -> float:
        """Log the alerts and post them to the webhook. Alerts that it does not take wait.

        Returns how many seconds this took.
        """
        raws = await self.batcher.send("LRANGE", self.keys.alerts(), -ALERTS_PER_ROUND, -1)
        if not raws:
            return 0.0
        import aiohttp  # 3 MB, which an idle worker does without

        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=POST_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for raw in reversed(raws):
                alert = _readable(orjson.loads(raw))
                if not await self._claim(alert):
                    continue
                self._log_once(alert)
                if self.url is not None and not await self._post(session, alert):
                    break
                await self.batcher.send("LREM", self.keys.alerts(), -1, raw)
                self._logged.discard(alert["id"])
                if time.monotonic() - began >= POST_S:
                    break
        return time.monotonic() - began

    async def _claim(self, alert: dict[str, str]) -> bool:
        """Return False if another worker sends the alert. Its claim lapses if it dies."""
        key = self.keys.alert(alert["id"])
        if await self.batcher.send("SET", key, self.owner, "NX", "PX", CLAIM_MS):
            return True
        if await self.batcher.send("GET", key) != self.owner.encode():
            return False
        await self.batcher.send("PEXPIRE", key, CLAIM_MS)
        return True

    def _log_once(self, alert: dict[str, str]) -> None:
        if alert["id"] in self._logged:
            return
        self._logged.add(alert["id"])
        log.warning(
            "the budget of %s for %s is at %s %%: %s of %s USD are spent",
            alert["scope"], alert["period"], alert["percent"], alert["spent_usd"],
            alert["budget_usd"],
        )  # fmt: skip

    async def _post(self, session: aiohttp.ClientSession, alert: dict[str, str]) -> bool:
        import aiohttp

        try:
            async with session.post(self.url or "", json=alert) as answer:
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # The error's own text may quote the address, which may hold a secret.
            status = getattr(error, "status", None)
            self._webhook_log.failed(OSError(f"HTTP {status}" if status else type(error).__name__))
            return False
        self._webhook_log.answered()
        return True


def _readable(raw: dict[str, str]) -> dict[str, str]:
    """Return the alert in the form in which the webhook gets it: amounts in USD, times in ISO."""
    period = raw["period"]
    return {
        "id": raw["id"],
        "event": "budget",
        "scope": scopes.shown(raw["scope"]),
        "period": "-".join(part for part in (period[:4], period[4:6], period[6:]) if part),
        "percent": f"{float(raw['share']) * 100:g}",
        "budget_usd": usd_text(int(raw["budget"])),
        "spent_usd": usd_text(int(raw["spent"])),
        "at": datetime.fromtimestamp(int(raw["at_ms"]) / 1000, UTC).isoformat(),
    }
