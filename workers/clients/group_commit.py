"""Commits the writes of many jobs in one transaction, in one thread.

A write is an act with an item. An act is a plain function `act(connection, items) -> answers` that
returns one answer per item. `write` waits until its transaction is committed. An idle worker
starts a transaction at once; a loaded one rests after each, so that groups form.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.database.engine import lost_a_race, passes, reason, writing
from headgate.workers.clients.outage_log import OutageLog

log = logging.getLogger("headgate.record")

REST = 4
"""Under load the thread rests so many times as long as its last commit took.

So commits take a fifth of its time at most, and a quick disk lets jobs wait for 4 ms, not for 20.
"""

MOST_REST_S = 0.02
"""The longest rest. 50 commits a second are enough for any rate."""

BUSY = 4
"""A worker counts as loaded from this many items in a group on."""

LARGEST = 500
"""Most items in a transaction. SQLite has one writer: a larger one makes other processes wait."""

I = TypeVar("I")  # noqa: E741  # the item
A = TypeVar("A")  # the answer
Act = Callable[[Connection, Sequence[I]], Sequence[A]]


@dataclass(slots=True)
class _Entry:
    writes: tuple[tuple[Act[Any, Any], Any], ...]
    future: asyncio.Future[Any]
    alone: bool  # one write: its answer is returned, not a list of one answer
    answers: list[Any] = field(default_factory=list)
    error: Exception | None = None
    lost: bool = False


class GroupCommit:
    """One writer thread with one connection. Create it on the loop that its users run on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Entry] = []
        self._wake = threading.Condition()
        self._closing = False
        self._ended = False
        self._outage_log = OutageLog(log, "the database", "jobs wait for it")
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def write(self, act: Act[I, A], item: I) -> asyncio.Future[A]:
        """Return the act's answer for this item, once it is committed.

        Waits for as long as the database does not answer. Raises the database's error for this
        item alone. The act runs again from its start if its transaction was lost.
        """
        return self._enter(((act, item),), alone=True)

    def together(self, *writes: tuple[Act[Any, Any], Any]) -> asyncio.Future[list[Any]]:
        """Return the answers of several acts for one job, committed in one transaction."""
        return self._enter(writes, alone=False)

    def _enter(
        self, writes: tuple[tuple[Act[Any, Any], Any], ...], *, alone: bool
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        with self._wake:
            if self._ended:
                future.cancel()
            self._waiting.append(_Entry(writes, future, alone))
            self._wake.notify()
        return future

    async def close(self) -> None:
        """Commit what was written before, and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, 10)
        self._engine.dispose()

    def _run(self) -> None:
        ended_at, rest_s = 0.0, 0.0
        last_size = 0
        while True:
            with self._wake:
                while not self._waiting and not self._closing:
                    self._wake.wait()
                if self._closing and not self._waiting:
                    self._ended = True
                    return
            left_s = ended_at + rest_s - time.monotonic()
            if left_s > 0 and last_size >= BUSY and not self._closing:
                time.sleep(left_s)
            with self._wake:
                group, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            last_size = len(group)
            began_at = time.monotonic()
            self._commit(group)
            ended_at = time.monotonic()
            rest_s = min(MOST_REST_S, REST * (ended_at - began_at))
            self._loop.call_soon_threadsafe(_answer, group)

    def _commit(self, group: list[_Entry]) -> None:
        """Commit the group, or give its faulty items their errors.

        Waits while the database is away or busy, then runs the acts again. Acts are safe to repeat
        after a commit that was not answered.
        """
        pause_s = 0.05
        while True:
            try:
                self._transact(group)
                self._outage_log.answered()
                return
            except (DBAPIError, OSError) as error:
                # An OSError is about this machine (no file handle left, say), not about the items.
                # What was paid for waits until it can be recorded.
                if isinstance(error, DBAPIError) and not passes(error):
                    self._one_by_one(group, error)
                    return
                if self._closing:
                    for entry in group:
                        entry.lost = True
                    return
                if isinstance(error, DBAPIError) and lost_a_race(error):
                    log.info("repeating a transaction: %s", reason(error))
                else:
                    self._outage_log.failed(getattr(error, "orig", None) or error)
                time.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)
            except Exception as error:
                self._one_by_one(group, error)
                return

    def _one_by_one(self, group: list[_Entry], error: Exception) -> None:
        """Commit each item by itself: one is faulty, and the database does not say which."""
        if len(group) == 1:
            group[0].error = error
            return
        for entry in group:
            self._commit([entry])

    def _transact(self, group: list[_Entry]) -> None:
        by_act: dict[Act[Any, Any], list[tuple[_Entry, int, Any]]] = {}
        for entry in group:
            entry.answers = [None] * len(entry.writes)
            for place, (act, item) in enumerate(entry.writes):
                by_act.setdefault(act, []).append((entry, place, item))
        with writing(self._engine, by_key=True) as connection:
            for act, written in by_act.items():
                answers = act(connection, [item for _, _, item in written])
                for (entry, place, _), answer in zip(written, answers, strict=True):
                    entry.answers[place] = answer


def _answer(group: list[_Entry]) -> None:
    for entry in group:
        if entry.future.done():  # its job was cancelled while it waited
            continue
        if entry.lost:
            entry.future.cancel()  # not the job's fault: it returns to its queue
        elif entry.error is not None:
            entry.future.set_exception(entry.error)
        else:
            entry.future.set_result(entry.answers[0] if entry.alone else entry.answers)
