"""Periodic care, by one worker at a time: jobs that the broker lost are sent again, old ones shed,
and those that waited past their deadline end.

A row that is not ended belongs to a job that the broker must know (the set `present`). Where it
does not, the message was never sent (a producer died after the row) or was lost with the server's
memory. Sending is safe also when the sweep is wrong: the claim makes a second message harmless.

Workers end what is late when they meet it, but nobody meets a job in a queue that no worker serves,
behind a pause, or deep in a line that hardly moves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from redis.exceptions import RedisError
from sqlalchemy import Engine, Row, delete, func, select, update
from sqlalchemy.exc import DBAPIError

from headgate.shared.broker import queues
from headgate.shared.database.engine import passes, reading, writing
from headgate.shared.database.finish import end_waiting, tell
from headgate.shared.database.tables import KEY_KEPT_MS, idempotency, jobs
from headgate.shared.errors import NewerEnvelope, UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED, OPEN, WAITING, ErrorReport, Result
from headgate.shared.servers.servers import Servers
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.budgets import BudgetUpkeep
from headgate.workers.maintenance.prune import Prune
from headgate.workers.maintenance.usage_rollup import UsageRollup

log = logging.getLogger("headgate.sweep")

PAGE = 1000
"""Rows looked at in one step."""

ENDED_AT_ONCE = 200
"""Jobs that end in one transaction: longer ones make the workers' commits wait."""

ALL_AGAIN = 200
"""Times as long as a look at every open job took, until the next one that nothing points to."""

LATE_MS = 2000
"""How long a deadline has passed before the sweep ends a job: a worker may be about to."""

WHY_LATE = ErrorReport("deadline", "the deadline passed while it waited", False)


class Recover:
    """Looks once a period whether a job may be lost or late, and then at every open one.

    At every one it also looks when nothing points to it, spending a 200th of the time at most.
    """

    def __init__(
        self, servers: Servers, engine: Engine, lane: RedisBatcher, *, owner: str, period_s: float,
        result_ttl_s: int, tidy: Prune | None = None, balance: BudgetUpkeep | None = None,
        sums: UsageRollup | None = None,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:  # fmt: skip
        self._servers = servers
        self._engine = engine
        self._lane = lane
        self._owner = owner
        self._period_s = period_s
        self._result_ttl_s = result_ttl_s
        self._tidy = tidy
        self._balance = balance
        self._sums = sums
        self._clock_ms = clock_ms
        self._all_again_at = 0.0
        self._silence = OutageLog(log, "the sweep's database", "the sweep waits for it")
        self._refused = OutageLog(log, "the sweep's Redis", "the sweep waits for it")

    async def run(self) -> None:
        """Sweeps until it is cancelled; a fault of one round is logged and the next one comes."""
        while True:
            began = time.monotonic()
            try:
                if await self._is_mine():
                    if self._tidy is not None:
                        await self._tidy.forget_purged()
                        await self._tidy.shed_letters()
                        await self._tidy.shed_answers()
                    late, sent = await self._look()
                    if late:
                        log.warning("%d jobs that waited past their deadline have expired", late)
                    if sent:
                        log.warning("%d jobs that the broker did not know were sent again", sent)
                    await asyncio.to_thread(self._shed)
                    await asyncio.to_thread(forget_keys, self._engine, self._clock_ms())
                    # A slow webhook and a large day do not make the next sweep late.
                    if self._balance is not None:
                        began += await self._balance.care()
                    if self._sums is not None:
                        began += await self._sums.round()
                    # The turn outlasts the pause, which grows with the work.
                    pause_s = max(self._period_s, 20 * (time.monotonic() - began))
                    turn_ms = int(2000 * pause_s)
                    await self._lane.send("PEXPIRE", self._servers.keys.sweeper(), turn_ms)
                self._silence.heard()
                self._refused.heard()
            except RedisError as error:
                self._refused.missed(error)
            except DBAPIError as error:
                if passes(error):
                    self._silence.missed(error.orig or error)
                else:
                    log.exception("the sweep failed; it tries again")
            except Exception:
                log.exception("the sweep failed; it tries again")
            await asyncio.sleep(max(self._period_s, 20 * (time.monotonic() - began)))

    async def _look(self) -> tuple[int, int]:
        began = time.monotonic()
        if began < self._all_again_at and not await self._is_amiss():
            return 0, 0
        found = await self.look_at_all()
        self._all_again_at = time.monotonic() + ALL_AGAIN * (time.monotonic() - began)
        return found

    async def _is_amiss(self) -> bool:
        """Whether the record has more open jobs than the broker knows, or one that is late.

        A lost job may hide behind one that has just ended and is not acknowledged yet; for a while.
        """
        known = await self._lane.send("SCARD", self._servers.keys.present())
        open_jobs, deadline_at_ms = await asyncio.to_thread(self._count)
        late = deadline_at_ms is not None and deadline_at_ms < self._clock_ms() - LATE_MS
        return bool(late or open_jobs > known)

    def _count(self) -> tuple[int, int | None]:
        first_ms = func.min(jobs.c.deadline_at_ms).filter(jobs.c.status.in_(WAITING))
        query = select(func.count(), first_ms)
        with reading(self._engine) as connection:
            count, deadline_at_ms = connection.execute(query.where(jobs.c.status.in_(OPEN))).one()
        return count, deadline_at_ms

    async def _is_mine(self) -> bool:
        """True for the one worker whose turn it is; the turn lapses after two periods."""
        key = self._servers.keys.sweeper()
        turn_ms = int(self._period_s * 2000)
        if await self._lane.send("SET", key, self._owner, "NX", "PX", turn_ms):
            return True
        if await self._lane.send("GET", key) != self._owner.encode():
            return False
        await self._lane.send("PEXPIRE", key, turn_ms)
        return True

    async def look_at_all(self) -> tuple[int, int]:
        """How many open jobs have expired, and how many were sent again: those the broker lost.

        Every job is looked at that is older than half a period.
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
            known = await self._lane.send("SMISMEMBER", self._servers.keys.present(), *ids)
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
        """Those of these jobs that still wait have ended, on record and for all who wait."""
        ended = 0
        client = self._servers.redis_client()
        try:
            client.ping()  # who waits must hear of it: nothing ends while Redis is away
            for first in range(0, len(ids), ENDED_AT_ONCE):
                results = self._end(ids[first : first + ENDED_AT_ONCE])
                tell(client, self._servers.keys, results, result_ttl_s=self._result_ttl_s)
                ended += len(results)
        finally:
            client.close()
        return ended

    def _end(self, ids: list[str]) -> list[Result]:
        # Locked in the order of their ids, as by those who cancel them.
        some = select(jobs).where(jobs.c.id.in_(ids), jobs.c.status.in_(WAITING))
        with writing(self._engine) as connection:
            rows = connection.execute(some.order_by(jobs.c.id).with_for_update()).all()
            found = {envelope.id: envelope for envelope, _ in _readable(rows)}
            waiting = [(row, found[row.id]) for row in rows if row.id in found]
            return end_waiting(connection, waiting, WHY_LATE, at_ms=self._clock_ms())

    def _send(self, ids: list[str]) -> int:
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(jobs.c.envelope).where(jobs.c.id.in_(ids), jobs.c.status.not_in(ENDED))
            ).all()
        client = self._servers.redis_client()
        try:
            return queues.send(client, self._servers.keys, _readable(rows))
        finally:
            client.close()

    def _shed(self) -> None:
        """The words of jobs that ended long ago are gone; their audit lines stay."""
        old_ms = self._clock_ms() - self._result_ttl_s * 1000
        old = (
            select(jobs.c.id)
            .where(jobs.c.status.in_(sorted(ENDED)), jobs.c.finished_at_ms < old_ms)
            .where(jobs.c.envelope.is_not(None))
            .limit(PAGE // 2)
        )
        while True:
            # Looked for without the write lock: most rounds find nothing.
            with reading(self._engine) as connection:
                ids = [row.id for row in connection.execute(old)]
            if not ids:
                return
            with writing(self._engine) as connection:
                connection.execute(
                    update(jobs).where(jobs.c.id.in_(ids)).values(envelope=None, result=None)
                )


def forget_keys(engine: Engine, at_ms: int) -> None:
    """Idempotency keys whose day is over are gone."""
    old = idempotency.c.created_at_ms <= at_ms - KEY_KEPT_MS
    oldest = select(idempotency.c.created_at_ms).where(old).order_by(idempotency.c.created_at_ms)
    while True:
        with reading(engine) as connection:
            found = connection.execute(oldest.limit(PAGE)).all()
        if not found:
            return
        with writing(engine) as connection:
            last_ms = found[-1].created_at_ms
            connection.execute(delete(idempotency).where(idempotency.c.created_at_ms <= last_ms))


def _readable(rows: Iterable[Row[Any]]) -> list[tuple[Envelope, bytes]]:
    """The envelopes of these rows, each as it stands there too."""
    found = []
    for row in rows:
        if not row.envelope:
            continue
        try:
            found.append((Envelope.decode(orjson.loads(row.envelope)), row.envelope.encode()))
        except NewerEnvelope:
            continue  # a sweep of its own release looks after it
        except UnreadableMessage as error:
            log.error("a job on record cannot be read: %s", error.reason)
    return found
