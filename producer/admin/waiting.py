"""Reads where jobs wait for their pool, and the state of that pool, in one round trip.

A waiting queue holds the jobs of one Celery queue that wait for one pool. This module reads only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.producer.admin.levels import (
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
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, fields_of, text_of
from headgate.shared.errors import UnreadableMessage

IDS_PER_CALL = 200
"""How many jobs one call looks up; it blocks Redis for about 4 ms."""

USER_QUEUES_PER_CALL = 250
"""How many user queues one call counts; it blocks Redis for less than 1 ms."""


@dataclass(frozen=True, slots=True)
class WaitingQueue:
    """The jobs of one queue that wait for one pool.

    `first_rank_ms`: the rank of the most urgent job. `tenants`: how many take turns. `mean`: the
    mean load of a job, from a sample. `head`: the load of the next job. `oldest_ms`: when the
    oldest job of the sample arrived.
    """

    queue: str
    pool: str
    waiting: int
    first_rank_ms: float | None
    tenants: int
    mean: Load
    head: Load
    oldest_ms: int | None

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job waits.

    `ahead`: jobs ahead of it in its user queue. `users`: how many users of its tenant take turns.
    `is_paused`: by an operator. `retry_at_ms`: when its user or its tenant, who are over a limit of
    their own, are tried again.
    """

    id: str
    queue: str
    ticket: Ticket
    ahead: int
    users: int
    is_paused: bool
    retry_at_ms: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A job waits for a limit; `until_ms`: when it may start, an estimate; None if unknown."""

    until_ms: int | None


@dataclass(frozen=True, slots=True)
class WaitingJobs:
    """The places of waiting jobs, by job id, and the pools, by name."""

    now_ms: int
    places: Mapping[str, Place]
    pools: Mapping[str, WaitingPool]

    def wait_of(self, job_id: str) -> Wait | None:
        """Return until when the job waits for a limit; None if it waits for none.

        The jobs ahead of it are those with earlier turns, counted from the tenants and users that
        take turns, and all jobs of queues of its pool that have a more urgent job.
        """
        place = self.places.get(job_id)
        if place is None:
            return None
        pool = self.pools[place.ticket.pool]
        queue = next((queue for queue in pool.queues if queue.queue == place.queue), None)
        if queue is None:
            return None
        if place.is_paused:
            return Wait(None)
        retry_at_ms = place.retry_at_ms or 0.0
        next_ms = pool.wait_ms(queue.head, self.now_ms)
        if next_ms <= 0 and retry_at_ms <= self.now_ms:
            return None
        turns = (place.ahead + 1) * place.users * max(1, queue.tenants) - 1
        ahead = queue.mean.times(min(turns, queue.waiting - 1))
        for other in pool.queues:
            if (other.first_rank_ms or math.inf) < (queue.first_rank_ms or math.inf):
                ahead += other.load
        drain_s = pool.drain_s(ahead + load_of(place.ticket), self.now_ms)
        if retry_at_ms == math.inf or all(key.gate.waits_for_word for key in pool.keys):
            return Wait(None)
        wait_ms = max(next_ms, (drain_s or 0.0) * 1000, retry_at_ms - self.now_ms)
        return Wait(int(min(self.now_ms + wait_ms, place.ticket.deadline_ms)))


def view(keys: Keys, *, ids: Sequence[str] = (), pools: Sequence[str] = ()) -> Command[WaitingJobs]:
    """Return the command that reads where these jobs wait, and the state of their pools.

    `pools`: further pools to read.
    """

    def read(reply: Any) -> WaitingJobs:
        now_ms = int(reply[0])
        places = [_parse_place(fields) for fields in reply[1]]
        found = [_parse_pool(fields, now_ms) for fields in reply[2]]
        return WaitingJobs(
            now_ms,
            {place.id: place for place in places if place is not None},
            {pool.name: pool for pool in found},
        )

    return compose("waiting_view", (), (keys.prefix, len(ids), *ids, *pools), read)


@dataclass(frozen=True, slots=True)
class UserQueues:
    """The user queues of a waiting queue: (quoted tenant, waiting jobs) each.

    `next_first`: the position of the next page, or -1.
    """

    next_first: int
    counts: Sequence[tuple[str, int]]


def user_queues(keys: Keys, queue: str, pool: str, first: int) -> Command[UserQueues]:
    """Return the command that counts the jobs of up to 250 user queues, from `first` on."""

    def read(reply: Any) -> UserQueues:
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        return UserQueues(int(reply[0]), [(text_of(tenant), int(n)) for tenant, n in pairs])

    args = (keys.prefix, queue, pool, first, USER_QUEUES_PER_CALL)
    return compose("user_queues", (), args, read)


def _parse_place(fields: Sequence[Any]) -> Place | None:
    try:
        ticket = Ticket.decode(text_of(fields[2]))
    except UnreadableMessage:
        return None
    retry_at = [float(text_of(moment)) for moment in fields[6:8] if moment]
    ahead, users = int(fields[3]), max(1, int(fields[4]))
    return Place(
        text_of(fields[0]), text_of(fields[1]), ticket, ahead, users, int(fields[5]) == 1,
        max(retry_at, default=None),
    )  # fmt: skip


def _parse_pool(fields: Sequence[Any], now_ms: int) -> WaitingPool:
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
    oldest: int | None = None
    for text, learned in zip(fields[4][::2], fields[4][1::2], strict=True):
        try:
            ticket = Ticket.decode(text_of(text))
        except UnreadableMessage:
            continue
        sample.append(load_of(ticket, text_of(learned)))
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
    )


def load_of(ticket: Ticket, learned: str = "") -> Load:
    """Return the load of a job with this ticket; `learned`: output tokens held for its kind."""
    output = ticket.output_tokens
    if ticket.rule == "a":
        output = min(output, int(float(learned or DEFAULT_OUTPUT)))
    return Load(1, ticket.input_tokens, output)
