"""Periodic care, by one worker at a time: jobs that the broker lost are sent again, old ones shed.

A row that is not ended belongs to a job that the broker must know (the set `present`). Where it
does not, the message was never sent (a producer died after the row) or was lost with the server's
memory. Sending is safe also when the sweep is wrong: the claim makes a second message harmless.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import orjson
from redis.exceptions import RedisError
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import DBAPIError

from shared import queues
from shared.connections import Servers
from shared.database import passes, reading, writing
from shared.envelope import ENDED, Envelope, now_ms
from shared.errors import NewerEnvelope, UnreadableMessage
from shared.tables import jobs
from workers.lane import Lane
from workers.silence import Silence
from workers.tidy import Tidy

log = logging.getLogger("headgate.sweep")

PAGE = 1000
"""Rows looked at in one step."""

OPEN = ("queued", "running", "deferred")


class Sweep:
    """Looks at every open job about once a period, spending a twentieth of the time at most."""

    def __init__(
        self, servers: Servers, engine: Engine, lane: Lane, *, owner: str, period_s: float,
        result_ttl_s: int, tidy: Tidy | None = None, clock_ms: Callable[[], int] = now_ms,
    ) -> None:  # fmt: skip
        self._servers = servers
        self._engine = engine
        self._lane = lane
        self._owner = owner
        self._period_s = period_s
        self._result_ttl_s = result_ttl_s
        self._tidy = tidy
        self._clock_ms = clock_ms
        self._silence = Silence(log, "the sweep's database", "the sweep waits for it")
        self._refused = Silence(log, "the sweep's Redis", "the sweep waits for it")

    async def run(self) -> None:
        """Sweeps until it is cancelled; a fault of one round is logged and the next one comes."""
        while True:
            began = time.monotonic()
            try:
                if await self._is_mine():
                    if self._tidy is not None:
                        await self._tidy.forget_purged()
                        await self._tidy.shed_letters()
                    sent = await self.send_lost()
                    if sent:
                        log.warning("%d jobs that the broker did not know were sent again", sent)
                    await asyncio.to_thread(self._shed)
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

    async def send_lost(self) -> int:
        """Every open job that is older than a period and unknown to the broker is sent again."""
        after, sent = "", 0
        before_ms = self._clock_ms() - int(self._period_s * 500)
        while page := await asyncio.to_thread(self._page, after, before_ms):
            after = page[-1][0]
            ids = [job_id for job_id, _ in page]
            known = await self._lane.send("SMISMEMBER", self._servers.keys.present(), *ids)
            lost = [row for row, is_known in zip(page, known, strict=True) if not is_known]
            if lost:
                sent += await asyncio.to_thread(self._send, [job_id for job_id, _ in lost])
        return sent

    def _page(self, after: str, before_ms: int) -> list[tuple[str, str]]:
        rows = (
            select(jobs.c.id, jobs.c.status)
            .where(jobs.c.status.in_(OPEN), jobs.c.id > after, jobs.c.submitted_at_ms < before_ms)
            .order_by(jobs.c.id)
            .limit(PAGE)
        )
        with reading(self._engine) as connection:
            return [(row.id, row.status) for row in connection.execute(rows)]

    def _send(self, ids: list[str]) -> int:
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(jobs.c.envelope).where(jobs.c.id.in_(ids), jobs.c.status.not_in(ENDED))
            )
            stored = [row.envelope for row in rows if row.envelope]
        found = []
        for text in stored:
            try:
                found.append((Envelope.decode(orjson.loads(text)), text.encode()))
            except NewerEnvelope:
                continue  # a sweep of its own release sends it
            except UnreadableMessage as error:
                log.error("a job on record cannot be read: %s", error.reason)
        client = self._servers.redis_client()
        try:
            return queues.send(client, self._servers.keys, found)
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
