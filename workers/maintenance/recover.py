"""Maintenance, by one worker at a time: sends lost jobs again and ends jobs past their deadline.

The broker must know (in the set `present`) every job whose row has not ended. If it does not, the
message was never sent, because a producer died after it wrote the row, or it was lost with the
server's memory. Sending again is safe in any case: the claim makes a second message harmless.

Workers end a late job when they fetch it. But they do not fetch jobs of a queue that no worker
serves or that is paused, nor jobs deep in a waiting queue that hardly moves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from redis.exceptions import RedisError
from sqlalchemy import Engine, Row, func, select
from sqlalchemy.exc import DBAPIError

from headgate.shared.broker import queues
from headgate.shared.database.engine import passes, reading, writing
from headgate.shared.database.finish import end_waiting, publish
from headgate.shared.database.tables import jobs
from headgate.shared.errors import NewerEnvelope, UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED, OPEN, WAITING, ErrorReport, Result
from headgate.shared.servers.servers import Servers
from headgate.workers.clients import job_log
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.alerts import Alerts
from headgate.workers.maintenance.budgets import BudgetUpkeep
from headgate.workers.maintenance.callbacks import CallbackUpkeep
from headgate.workers.maintenance.census import maintenance_turn
from headgate.workers.maintenance.memory import MemoryWatch
from headgate.workers.maintenance.prune import Prune, forget_idempotency_keys
from headgate.workers.maintenance.shed import Shed
from headgate.workers.maintenance.usage_rollup import UsageRollup

log = logging.getLogger("headgate.sweep")

PAGE = 1000
"""Rows read in one step."""

ENDED_AT_ONCE = 200
"""Jobs that end in one transaction. More would make the workers' commits wait."""

ALL_AGAIN = 200
"""Without a sign of a lost job, all open jobs are checked for a 200th of the time at most."""

LATE_MS = 2000
"""A job is ended this long after its deadline: until then a worker may be ending it."""

WHY_LATE = ErrorReport("deadline", "the deadline passed while it waited", False)
WHY_EXPIRED = ErrorReport("expired", "it passed its `expires` while it waited", False)


class Recover:
    """Looks once a period whether a job may be lost or late, and then checks every open job.

    It also checks every open job without such a sign, for a 200th of the time at most. In the same
    rounds it looks at the memory of Redis, prunes, sends callbacks that are left, refreshes
    budgets, sends alerts and rolls up usage.
    """

    def __init__(
        self, servers: Servers, engine: Engine, batcher: RedisBatcher, *, owner: str,
        period_s: float, result_ttl_s: int, prune: Prune | None = None,
        budgets: BudgetUpkeep | None = None, alerts: Alerts | None = None,
        rollup: UsageRollup | None = None, memory: MemoryWatch | None = None,
        callbacks: CallbackUpkeep | None = None,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:  # fmt: skip
        self._servers = servers
        self._engine = engine
        self._batcher = batcher
        self._owner = owner
        self._period_s = period_s
        self._result_ttl_s = result_ttl_s
        self._prune = prune
        self._budgets = budgets
        self._alerts = alerts
        self._rollup = rollup
        self._memory = memory
        self._callbacks = callbacks
        self._shed = Shed(engine, batcher, servers.keys, clock_ms)
        self._clock_ms = clock_ms
        self._all_again_at = 0.0
        self._database_log = OutageLog(log, "the database of maintenance", "maintenance waits")
        self._redis_log = OutageLog(log, "the Redis of maintenance", "maintenance waits")

    async def run(self) -> None:
        """Do a round each period until cancelled. A fault of one round is logged."""
        while True:
            began = time.monotonic()
            try:
                if await self._has_turn():
                    if self._memory is not None:  # first: what follows waits for a full Redis
                        await self._memory.look()
                    await self._prune_broker()
                    await self._recover_jobs()
                    await self._follow_up()
                    await asyncio.to_thread(forget_idempotency_keys, self._engine, self._clock_ms())
                    if self._budgets is not None:
                        await self._budgets.refresh()
                    # A slow webhook or a large day must not make the next round late.
                    if self._alerts is not None:
                        began += await self._alerts.send()
                    if self._rollup is not None:
                        began += await self._rollup.round()
                    # The turn outlasts the pause, which grows with the work.
                    pause_s = max(self._period_s, 20 * (time.monotonic() - began))
                    turn_ms = int(2000 * pause_s)
                    await self._batcher.send("PEXPIRE", self._servers.keys.sweeper(), turn_ms)
                self._database_log.answered()
                self._redis_log.answered()
            except RedisError as error:
                self._redis_log.failed(error)
            except DBAPIError as error:
                if passes(error):
                    self._database_log.failed(error.orig or error)
                else:
                    log.exception("a round of maintenance failed; trying again")
            except Exception:
                log.exception("a round of maintenance failed; trying again")
            await asyncio.sleep(max(self._period_s, 20 * (time.monotonic() - began)))

    async def _follow_up(self) -> None:
        """Do what is left to do of jobs that have ended."""
        if self._callbacks is not None:
            await self._callbacks.round()
        await self._shed.round()

    async def _prune_broker(self) -> None:
        if self._prune is not None:
            await self._prune.forget_purged()
            await self._prune.drop_dead_letters()
            await self._prune.evict_answers()
            await self._prune.evict_results()

    async def _recover_jobs(self) -> None:
        """Check all open jobs if it is time or if something points to a lost or late job."""
        began = time.monotonic()
        if began < self._all_again_at and not await self._is_amiss():
            return
        late, sent = await self.recover_all()
        self._all_again_at = time.monotonic() + ALL_AGAIN * (time.monotonic() - began)
        if late:
            log.warning("%d jobs that waited past their deadline have expired", late)
        if sent:
            log.warning("%d jobs that the broker did not know were sent again", sent)

    async def _is_amiss(self) -> bool:
        """Return True if the database has more open jobs than the broker knows, or a late one.

        A lost job may be missed for a while, behind one that has ended but is not acknowledged yet.
        """
        known = await self._batcher.send("SCARD", self._servers.keys.present())
        open_jobs, deadline_at_ms = await asyncio.to_thread(self._count)
        late = deadline_at_ms is not None and deadline_at_ms < self._clock_ms() - LATE_MS
        return bool(late or open_jobs > known)

    def _count(self) -> tuple[int, int | None]:
        first_ms = func.min(jobs.c.deadline_at_ms).filter(jobs.c.status.in_(WAITING))
        query = select(func.count(), first_ms)
        with reading(self._engine) as connection:
            count, deadline_at_ms = connection.execute(query.where(jobs.c.status.in_(OPEN))).one()
        return count, deadline_at_ms

    async def _has_turn(self) -> bool:
        """Return True for the one worker whose turn it is. A turn lapses after two periods."""
        turn_ms = int(self._period_s * 2000)
        command = maintenance_turn(self._servers.keys, self._owner, turn_ms)
        return await self._batcher.run(command)

    async def recover_all(self) -> tuple[int, int]:
        """End the open jobs that are late, and send again those that the broker lost.

        Returns how many of each. Jobs younger than half a period are left alone.
        """
        after, late, sent = "", 0, 0
        now_ms = self._clock_ms()
        before_ms = now_ms - int(self._period_s * 500)
        while page := await asyncio.to_thread(self._page, after, before_ms):
            after = page[-1].id
            over = [
                row.id
                for row in page
                if row.status in WAITING and row.deadline_at_ms < now_ms - LATE_MS
            ]
            if over:
                late += await asyncio.to_thread(self._expire, over)
            left = set(over)
            ids = [row.id for row in page if row.id not in left]
            if not ids:
                continue
            known = await self._batcher.send("SMISMEMBER", self._servers.keys.present(), *ids)
            lost = [job_id for job_id, is_known in zip(ids, known, strict=True) if not is_known]
            if lost:
                sent += await asyncio.to_thread(self._send, lost)
        return late, sent

    def _page(self, after: str, before_ms: int) -> Sequence[Any]:
        rows = (
            select(jobs.c.id, jobs.c.status, jobs.c.deadline_at_ms)
            .where(jobs.c.status.in_(OPEN), jobs.c.id > after, jobs.c.submitted_at_ms < before_ms)
            .order_by(jobs.c.id)
            .limit(PAGE)
        )
        with reading(self._engine) as connection:
            return connection.execute(rows).all()

    def _expire(self, ids: list[str]) -> int:
        """End those of these jobs that still wait, and return how many. Callers get the result."""
        ended = 0
        client = self._servers.redis_client()
        try:
            client.ping()  # nothing may end while Redis is away: callers would not learn of it
            for first in range(0, len(ids), ENDED_AT_ONCE):
                results = self._end(ids[first : first + ENDED_AT_ONCE])
                publish(client, self._servers.keys, results, result_ttl_s=self._result_ttl_s)
                ended += len(results)
        finally:
            client.close()
        return ended

    def _end(self, ids: list[str]) -> list[Result]:
        # Lock rows in the order of their ids, as cancelling does.
        some = select(jobs).where(jobs.c.id.in_(ids), jobs.c.status.in_(WAITING))
        with writing(self._engine) as connection:
            rows = connection.execute(some.order_by(jobs.c.id).with_for_update()).all()
            found = {envelope.id: envelope for envelope, _ in readable(rows)}
            waiting = [(row, found[row.id]) for row in rows if row.id in found]
            at_ms = self._clock_ms()
            expired = [pair for pair in waiting if pair[1].deadline_at_ms > at_ms]
            late = [pair for pair in waiting if pair[1].deadline_at_ms <= at_ms]
            results = [
                *end_waiting(connection, late, WHY_LATE, at_ms=at_ms),
                *end_waiting(connection, expired, WHY_EXPIRED, at_ms=at_ms),
            ]
        for result in results:
            job_log.log_end(found[result.id], result)
        return results

    def _send(self, ids: list[str]) -> int:
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(jobs.c.envelope).where(jobs.c.id.in_(ids), jobs.c.status.not_in(ENDED))
            ).all()
        client = self._servers.redis_client()
        try:
            return queues.send(client, self._servers.keys, readable(rows))
        finally:
            client.close()


def readable(rows: Iterable[Row[Any]]) -> list[tuple[Envelope, bytes]]:
    """Return the envelopes of these rows, decoded and as they are stored."""
    found = []
    for row in rows:
        if not row.envelope:
            continue
        try:
            found.append((Envelope.decode(orjson.loads(row.envelope)), row.envelope.encode()))
        except NewerEnvelope:
            continue  # workers of its own release recover it
        except UnreadableMessage as error:
            log.error("a job in the database cannot be read: %s", error.reason)
    return found
