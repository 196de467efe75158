"""Bucket: an attempt takes what it needs from all buckets of its pool, or waits.

Jobs that must wait a moment stand in line in this process, one line per pool, and only the first
asks the server. Jobs that would wait longer than `MOMENT_MS` are deferred, each to about the time
of its turn, so that they hold no slot and do not all come back at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from shared import scripts
from shared.catalog import Pool
from shared.keys import Keys
from shared.scripts import Draw
from workers.lane import Lane

MOMENT_MS = 2000
"""How long a job may wait in a worker: it holds a slot, but no connection and no bucket."""


HOLD_MS = 3_600_000
"""How long a hold may wait for its settlement; then it stays spent. Longer than any attempt."""

SPENT_MS = 60_000
"""How long a hold that is spent from the start is known: only a command sent twice asks for it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What an attempt took. `draws` in the order in which `settle` must name the amounts."""

    attempt: str
    draws: tuple[Draw, ...]
    measures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Later:
    """There is no place within a moment; come back after `wait_ms`."""

    wait_ms: int


@dataclass(slots=True)
class _Line:
    """Who waits for one pool in this process."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    free_at_ms: float = 0.0


class Bucket:
    """The buckets of all pools; a pool without limits costs nothing."""

    def __init__(self, lane: Lane, keys: Keys, clock_ms: Callable[[], float]) -> None:
        self._lane = lane
        self._keys = keys
        self._clock_ms = clock_ms
        self._lines: dict[str, _Line] = {}

    async def reserve(
        self,
        attempt: str,
        pool: Pool,
        key: str,
        *,
        input_tokens: int,
        output_tokens: int,
        settles: bool,
        rank: str,
    ) -> Hold | Later:
        """The attempt holds its request and its tokens, after waiting a moment at most.

        `key` tells apart the provider's keys, each with limits of its own. Tokens are estimates.
        `settles`: whether `settle` will be called. Each `rank` (priority) has a line of its own.
        """
        hold = self._draws(attempt, pool, key, input_tokens, output_tokens)
        if not hold.draws:
            return hold
        line = self._lines.setdefault(f"{rank} {hold.draws[0].key}", _Line())
        command = scripts.reserve(
            self._keys,
            attempt=attempt,
            draws=hold.draws,
            hold_ms=HOLD_MS if settles else SPENT_MS,
        )
        cost_ms = max(draw.amount / draw.per_ms for draw in hold.draws)
        if line.lock.locked() and self._turn_ms(line, cost_ms) > MOMENT_MS:
            return self._later(line, cost_ms, ahead=line.waiting)
        line.waiting += 1
        try:
            async with line.lock:
                while True:
                    wait_ms = await self._lane.run(command)
                    if wait_ms == 0:
                        if line.waiting == 1:
                            # Nobody else is here: those who were told to come later may be gone.
                            line.free_at_ms = min(line.free_at_ms, self._clock_ms() + MOMENT_MS)
                        return hold
                    if wait_ms > MOMENT_MS:
                        line.free_at_ms = max(line.free_at_ms, self._clock_ms() + wait_ms)
                        return self._later(line, cost_ms, ahead=line.waiting - 1)
                    await asyncio.sleep(wait_ms / 1000)
        finally:
            line.waiting -= 1

    async def settle(self, hold: Hold, *, input_tokens: int, output_tokens: int) -> None:
        """The hold has ended at what was really used."""
        if not hold.draws:
            return
        used = {
            "rpm": 1.0,
            "tpm": float(input_tokens + output_tokens),
            "input_tpm": float(input_tokens),
            "output_tpm": float(output_tokens),
        }
        amounts = [used[measure] for measure in hold.measures]
        await self._lane.run(
            scripts.settle(self._keys, attempt=hold.attempt, draws=hold.draws, used=amounts)
        )

    def _draws(
        self, attempt: str, pool: Pool, key: str, input_tokens: int, output_tokens: int
    ) -> Hold:
        wanted = (
            ("rpm", pool.rpm, 1),
            ("tpm", pool.tpm, input_tokens + output_tokens),
            ("input_tpm", pool.input_tpm, input_tokens),
            ("output_tpm", pool.output_tpm, output_tokens),
        )
        draws, measures = [], []
        for measure, per_minute, amount in wanted:
            if per_minute is None:
                continue
            capacity = max(1.0, per_minute / 60 * pool.burst_s)
            name = self._keys.bucket(pool.key, key, measure)
            draws.append(Draw(name, per_minute / 60_000, capacity, float(amount)))
            measures.append(measure)
        return Hold(attempt, tuple(draws), tuple(measures))

    def _turn_ms(self, line: _Line, cost_ms: float) -> float:
        return max(0.0, line.free_at_ms - self._clock_ms()) + line.waiting * cost_ms

    def _later(self, line: _Line, cost_ms: float, *, ahead: int) -> Later:
        now = self._clock_ms()
        turn_ms = max(line.free_at_ms, now + ahead * cost_ms)
        line.free_at_ms = turn_ms + cost_ms
        return Later(max(1, int(turn_ms - now)))
