"""Sends the events of webhooks, beside the jobs of a worker.

A worker sends what its own jobs have just put on record. The worker with the turn for maintenance
also looks every 2 s for events that are due: those of producers, of batches, and of attempts that
failed or broke off.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.database.engine import passes
from headgate.shared.database.webhooks import all_subscriptions
from headgate.shared.job.ids import now_ms
from headgate.shared.job.webhook_event import DAY_MS
from headgate.shared.settings import Settings
from headgate.shared.webhook_target import AllowedTargets
from headgate.workers.clients.group_commit import GroupCommit
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.webhook_outbox import WebhookOutbox
from headgate.workers.maintenance.webhooks import batch_ends, deliveries
from headgate.workers.maintenance.webhooks.deliveries import Attempted, DueEvent
from headgate.workers.maintenance.webhooks.signature import signed_headers
from headgate.workers.policy.webhook_retry import WebhookReply, judge

log = logging.getLogger("headgate.webhooks")

PERIOD_S = 2.0
"""How often a worker looks whether it has the turn and an event is due."""

GATHER_S = 0.05
"""How long a worker lets events gather after the first one."""

REFRESH_S = 5.0
"""How old a worker's list of the tenants' webhooks may be."""

PRUNE_S = 3600.0

LAST_S = 1.0
"""How long a worker that stops goes on sending."""

AT_ONCE = 300
"""Attempts under way in one worker."""

EACH = 50
"""Attempts under way for one tenant in one worker, so that a host that hangs holds up few."""


class Poster(Protocol):
    """Posts to webhooks; it is `WebhookPost`."""

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> WebhookReply:
        """Post the body and return the reply."""

    async def close(self) -> None:
        """Close all connections."""


@dataclass
class WebhookSender:
    """Sends events until cancelled. Create it on the loop that it runs on.

    `open_poster` is called once, before the first event is sent. `has_turn`: whether this worker
    does maintenance now. `keep_days`: how long ended events stay; 0 is for ever.
    """

    engine: Engine
    record: GroupCommit
    outbox: WebhookOutbox
    open_poster: Callable[[], Poster]
    has_turn: Callable[[], Awaitable[bool]]
    keep_days: int = 30
    clock_ms: Callable[[], int] = now_ms
    chance: Callable[[], float] = random.random
    last_s: float = LAST_S
    _under_way: dict[asyncio.Task[None], str] = field(default_factory=dict)
    _poster: Poster | None = None
    _is_used: bool = False
    _left: bool = False
    _look_at: float = 0.0
    _refresh_at: float = 0.0
    _prune_at: float = 0.0

    async def run(self) -> None:
        """Send events until cancelled; what is under way then is sent again by another worker."""
        outage_log = OutageLog(log, "the database of webhooks", "their events wait")
        is_due = False
        try:
            while True:
                try:
                    await self._round(is_due)
                    outage_log.answered()
                except RedisError as error:
                    outage_log.failed(error)
                except DBAPIError as error:
                    if passes(error):
                        outage_log.failed(error.orig or error)
                    else:
                        log.exception("events of webhooks were not sent; trying again")
                except Exception:
                    log.exception("events of webhooks were not sent; trying again")
                is_due = await self.outbox.wait(PERIOD_S)
                self._is_used = self._is_used or is_due
                await asyncio.sleep(GATHER_S)
        finally:
            with suppress(Exception):  # what is left is sent by another worker
                await asyncio.wait_for(self._send_last(), self.last_s)
            await self.stop()

    async def _send_last(self) -> None:
        """Send what the last jobs of this worker have left, for as long as a stop may take.

        It may be the only worker for now: commands on the embedded server start one of their own.
        """
        if self.outbox.ran_batches:
            await self.end_batches(early=True)
        if self._is_used or self.outbox.is_waiting:
            await self.send_due()
        await self.settled()

    async def _round(self, is_due: bool) -> None:
        now = time.monotonic()
        if now >= self._refresh_at:
            self.outbox.subscribed = await asyncio.to_thread(all_subscriptions, self.engine)
            self._refresh_at = now + REFRESH_S
        if now >= self._look_at:
            self._look_at = now + PERIOD_S
            if await self.has_turn():
                is_due = True
                await self.end_batches()
                await self._prune(now)
        if is_due:
            await self.send_due()

    async def _prune(self, now: float) -> None:
        if self.keep_days and now >= self._prune_at:
            before_ms = self.clock_ms() - self.keep_days * DAY_MS
            await asyncio.to_thread(deliveries.prune, self.engine, before_ms)
            self._prune_at = now + PRUNE_S

    async def end_batches(self, *, early: bool = False) -> int:
        """Make the events of batches that have ended; return how many."""
        found = await asyncio.to_thread(batch_ends.look, self.engine, self.clock_ms(), early=early)
        self._is_used = self._is_used or bool(found.ended or found.left)
        return found.ended

    async def send_due(self) -> int:
        """Start to send the events that are due, as many as fit; return how many."""
        started = 0
        self._left = False
        while (places := AT_ONCE - len(self._under_way)) > 0:
            running = Counter(self._under_way.values())
            found = await asyncio.to_thread(
                deliveries.claim, self.engine, self.clock_ms(), most=places, each=EACH,
                running=running,
            )  # fmt: skip
            for event in found:
                task = asyncio.create_task(self._deliver(event), name="webhook")
                self._under_way[task] = event.tenant
                task.add_done_callback(self._ended)
            started += len(found)
            self._is_used = self._is_used or bool(found)
            if not found:
                break
        running = Counter(self._under_way.values())
        self._left = len(self._under_way) >= AT_ONCE or max(running.values(), default=0) >= EACH
        return started

    async def settled(self) -> None:
        """Wait until no attempt is under way."""
        while self._under_way:
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def stop(self) -> None:
        """Break off what is under way, and close the connections."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._poster is not None:
            await self._poster.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what became of an event was not recorded: %s", type(error).__name__)
        if self._left:
            self.outbox.recorded()

    async def _deliver(self, event: DueEvent) -> None:
        """Make one attempt, and record what became of it."""
        try:
            attempted = await self._attempt(event)
        except asyncio.CancelledError:
            # Nobody waits for this write; the record commits it before it closes.
            again_ms = self.clock_ms()
            self.record.write(deliveries.settle, Attempted(
                event, "pending", again_ms, error="the worker stopped", due_at_ms=again_ms,
            ))  # fmt: skip
            raise
        if attempted.state in ("failed", "disabled"):
            log.warning(
                "event %s of tenant %s is given up after %d attempts: %s",
                event.id, event.tenant, event.attempts, attempted.error,
            )  # fmt: skip
        await self.record.write(deliveries.settle, attempted)

    async def _attempt(self, event: DueEvent) -> Attempted:
        at_ms = self.clock_ms()
        if event.url is None:
            error = "the tenant has no webhook any more"
            return Attempted(event, "disabled", at_ms, error=error)
        reply = await self._post(event.url, event, at_ms)
        at_ms = self.clock_ms()
        found = judge(
            reply, attempts=event.attempts, now_ms=at_ms, until_ms=event.until_ms,
            chance=self.chance(),
        )  # fmt: skip
        return Attempted(
            event, found.state, at_ms, reply.status, found.error, found.due_at_ms,
            gone=found.state == "disabled",
        )  # fmt: skip

    async def _post(self, url: str, event: DueEvent, at_ms: int) -> WebhookReply:
        try:
            if self._poster is None:
                self._poster = self.open_poster()
            headers = signed_headers(event.secrets, event.id, event.body, at_ms)
            return await self._poster.post(url, headers, event.body)
        except Exception as error:
            log.exception("event %s was not sent; it is tried again", event.id)
            return WebhookReply(None, f"{type(error).__name__} in the worker; see its log")


def sender(
    in_force: Settings, engine: Engine, record: GroupCommit, outbox: WebhookOutbox,
    has_turn: Callable[[], Awaitable[bool]], clock_ms: Callable[[], int],
) -> WebhookSender:  # fmt: skip
    """Return a sender by these settings; it opens nothing."""
    opened = partial(_posting, in_force.webhook_targets)
    return WebhookSender(engine, record, outbox, opened, has_turn, in_force.keep_days, clock_ms)


def _posting(allowed: AllowedTargets) -> Poster:
    """Open what posts to webhooks, which takes 3 MB that a worker without webhooks does without."""
    from headgate.workers.maintenance.webhooks.post import WebhookPost

    return WebhookPost(allowed)
