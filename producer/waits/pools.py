"""The state of a pool: its keys with their buckets and gates, and who waits for it.

A waiting queue holds the jobs of one Celery queue that wait for one pool. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.producer.waits.levels import (
    BucketLevel,
    GateState,
    LimitInForce,
    Load,
    drain_s,
    gate,
    levels,
    limits_in_force,
)
from headgate.shared.admission.ticket import FLEX, Ticket
from headgate.shared.broker.figures import DEFAULT_OUTPUT
from headgate.shared.broker.script import fields_of, text_of
from headgate.shared.errors import UnreadableMessage


@dataclass(frozen=True, slots=True)
class WaitingQueue:
    """The jobs of one queue that wait for one pool.

    `first_rank_ms`: the rank of the most urgent job. `tenants`: how many take turns. `mean`: the
    mean load of a job, from a sample. `head`: the load of the next job. `oldest_ms`: when the
    oldest job of the sample arrived. `sample`: tickets, each with the output tokens to expect.
    """

    queue: str
    pool: str
    waiting: int
    first_rank_ms: float | None
    tenants: int
    mean: Load
    head: Load
    oldest_ms: int | None
    sample: Sequence[tuple[Ticket, int]] = ()

    @property
    def load(self) -> Load:
        """The load of all its jobs, estimated from the mean of the sample."""
        return self.mean.times(self.waiting)


@dataclass(frozen=True, slots=True)
class PoolKey:
    """One key of a provider, with its buckets and its gate for one pool."""

    name: str
    levels: Sequence[BucketLevel]
    provider_levels: Sequence[BucketLevel]
    gate: GateState
    running: int

    def wait_ms(self, head: Load, now_ms: float) -> float:
        """Return how long (ms) the next job waits for this key.

        A full limit of concurrent calls counts as 1 s, since no one knows when a call ends.
        """
        wait_s = 0.0
        if self.gate.until_ms is not None:
            wait_s = (self.gate.until_ms - now_ms) / 1000
        for level in (*self.levels, *self.provider_levels):
            full = level.running is not None and level.running >= level.limit.amount
            needed = min(head.of(level.measure), level.capacity or head.of(level.measure))
            wait_s = max(wait_s, 1.0 if full else level.wait_s(needed, now_ms))
        if self.gate.ceiling is not None and self.running >= self.gate.ceiling:
            wait_s = max(wait_s, 1.0)
        return wait_s * 1000


@dataclass(frozen=True, slots=True)
class WaitingPool:
    """One pool: its keys, its waiting queues, and the buckets of the scope `global`."""

    name: str
    keys: Sequence[PoolKey]
    global_levels: Sequence[BucketLevel]
    queues: Sequence[WaitingQueue]

    @property
    def plain_name(self) -> str:
        """The name in the catalog; the flex tier of a pool has queues and gates of its own."""
        return self.name.removesuffix(FLEX)

    def wait_ms(self, head: Load, now_ms: float) -> float:
        """Return how long (ms) the next job waits for its grant; 0: it may start now."""
        shared = PoolKey("", self.global_levels, (), GateState(), 0).wait_ms(head, now_ms)
        return max(shared, min(key.wait_ms(head, now_ms) for key in self.keys))

    def drain_s(self, load: Load, now_ms: float) -> float | None:
        """Return the seconds until this load has been granted; None if unknown or unlimited.

        It ignores other pools of the same provider, which may use its limits in the meantime.
        """
        if all(key.gate.waits_for_word for key in self.keys):
            return None
        of_pool = [key.levels for key in self.keys]
        of_provider = [key.provider_levels for key in self.keys]
        found = [drain_s(load, each, now_ms) for each in (of_pool, of_provider)]
        known = [s for s in (*found, drain_s(load, [self.global_levels], now_ms)) if s is not None]
        shut = [(key.gate.until_ms or now_ms) - now_ms for key in self.keys]
        if min(shut) > 0:
            known.append(min(shut) / 1000 + max(known, default=0.0))
        return max(known, default=None)


def parse_pool(fields: Sequence[Any], now_ms: int) -> WaitingPool:
    """Read the state of a pool from the reply of the script `waiting_view`."""
    name, texts, of_all, keys, queues = fields
    given = [text_of(text) for text in texts]
    of_pool, of_provider, of_everyone = (limits_in_force(given[n], given[n + 1]) for n in (0, 2, 4))
    return WaitingPool(
        text_of(name),
        [_parse_key(key, of_pool, of_provider, now_ms) for key in keys],
        levels(of_everyone, fields_of(of_all), now_ms, of_provider=False),
        [_parse_queue(queue, text_of(name)) for queue in queues],
    )


def _parse_key(
    fields: Sequence[Any],
    of_pool: Mapping[str, LimitInForce],
    of_provider: Mapping[str, LimitInForce],
    now: int,
) -> PoolKey:
    bucket, provider_bucket, shut = (fields_of(fields[n]) for n in (1, 2, 3))
    found = gate(shut, now)
    running = max(0, int(float(bucket.get("running") or 0)))
    return PoolKey(
        text_of(fields[0]),
        levels(of_pool, bucket, now, of_provider=True, pace=found.pace),
        levels(of_provider, provider_bucket, now, of_provider=True, pace=found.pace),
        found,
        running,
    )


def _parse_queue(fields: Sequence[Any], pool: str) -> WaitingQueue:
    first_rank = float(text_of(fields[2]))
    sample: list[Load] = []
    expected: list[tuple[Ticket, int]] = []
    oldest: int | None = None
    for text, learned in zip(fields[4][::2], fields[4][1::2], strict=True):
        try:
            ticket = Ticket.decode(text_of(text))
        except UnreadableMessage:
            continue
        sample.append(load_of(ticket, text_of(learned)))
        output = int(float(text_of(learned) or DEFAULT_OUTPUT))
        expected.append((ticket, min(ticket.output_tokens, output)))
        oldest = min(oldest or ticket.arrival_ms, ticket.arrival_ms)
    mean = sum(sample, Load()).times(1 / len(sample)) if sample else Load(jobs=1)
    return WaitingQueue(
        text_of(fields[0]),
        pool,
        int(fields[1]),
        None if first_rank < 0 else first_rank,
        int(fields[3]),
        mean,
        sample[0] if sample else mean,
        oldest,
        expected,
    )


def load_of(ticket: Ticket, learned: str = "") -> Load:
    """Return the load of a job with this ticket; `learned`: output tokens held for its kind."""
    output = ticket.output_tokens
    if ticket.rule == "a":
        output = min(output, int(float(learned or DEFAULT_OUTPUT)))
    return Load(1, ticket.input_tokens, output)
