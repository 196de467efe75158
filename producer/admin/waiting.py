"""Where jobs wait for their pool, and how their pool stands: read in one round trip, for people.

A room is what waits in one queue for one pool. Nothing here changes anything.
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
"""Jobs that are looked for in one call: it holds the server for some 4 ms."""

LINES_PER_CALL = 250
"""UserQueues that are counted in one call: it holds the server for under a millisecond."""


@dataclass(frozen=True, slots=True)
class WaitingQueue:
    """What waits in one queue for one pool. `first_rank_ms`: that of its most urgent job.

    `tenants`: how many take turns. `mean`: what its jobs take each, from a sample.
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
        """What all its jobs take, by the mean of the sample."""
        return self.mean.times(self.waiting)


@dataclass(frozen=True, slots=True)
class PoolKey:
    """One key of a provider, as far as a pool is asked with it."""

    name: str
    levels: Sequence[BucketLevel]
    provider_levels: Sequence[BucketLevel]
    gate: GateState
    running: int

    def wait_ms(self, head: Load, now_ms: float) -> float:
        """How long the next job waits for this key; calls at once end nobody knows when."""
        wait_s = 0.0
        if self.gate.until_ms is not None:
            wait_s = (self.gate.until_ms - now_ms) / 1000
        for level in (*self.levels, *self.provider_levels):
            full = level.running is not None and level.running >= level.limit.amount
            enough = min(head.of(level.measure), level.capacity or head.of(level.measure))
            wait_s = max(wait_s, 1.0 if full else level.wait_s(enough, now_ms))
        if self.gate.ceiling is not None and self.running >= self.gate.ceiling:
            wait_s = max(wait_s, 1.0)
        return wait_s * 1000


@dataclass(frozen=True, slots=True)
class WaitingPool:
    """One pool: its rooms, its keys, and the buckets of all pools together."""

    name: str
    keys: Sequence[PoolKey]
    global_levels: Sequence[BucketLevel]
    rooms: Sequence[WaitingQueue]

    @property
    def plain_name(self) -> str:
        """As the catalog has it: the flex tier of a pool has rooms and gates of its own."""
        return self.name.removesuffix(FLEX)

    def wait_ms(self, head: Load, now_ms: float) -> float:
        """How long a job that is next in line waits for its grant; 0: it may start now."""
        shared = PoolKey("", self.global_levels, (), GateState(), 0).wait_ms(head, now_ms)
        return max(shared, min(key.wait_ms(head, now_ms) for key in self.keys))

    def drain_s(self, load: Load, now_ms: float) -> float | None:
        """Seconds until this much has been granted; None where nobody can tell.

        Other pools of the same provider are left out: they may take from its limits meanwhile.
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
    """Where a job waits. `before`: jobs before it in the line of its user.

    `users`: those of its tenant that take turns. `is_paused`: by an operator. `again_ms`: when its
    user or its tenant, who are over a limit of their own, are tried again.
    """

    id: str
    queue: str
    ticket: Ticket
    before: int
    users: int
    is_paused: bool
    again_ms: float | None


@dataclass(frozen=True, slots=True)
class Wait:
    """A job waits for a limit; `until_ms`: an estimate of its grant, None where nobody can tell."""

    until_ms: int | None


@dataclass(frozen=True, slots=True)
class WaitingJobs:
    """What was read: the jobs that wait in rooms, by id, and pools by name."""

    now_ms: int
    places: Mapping[str, Place]
    pools: Mapping[str, WaitingPool]

    def wait_of(self, job_id: str) -> Wait | None:
        """Until when the job waits for a limit; None where it does not: it may start any moment.

        Before it go those who are before it in the turns of tenants and users, by their number,
        and the rooms of its pool that have a more urgent job.
        """
        place = self.places.get(job_id)
        if place is None:
            return None
        pool = self.pools[place.ticket.pool]
        room = next((room for room in pool.rooms if room.queue == place.queue), None)
        if room is None:
            return None
        if place.is_paused:
            return Wait(None)
        again_ms = place.again_ms or 0.0
        next_ms = pool.wait_ms(room.head, self.now_ms)
        if next_ms <= 0 and again_ms <= self.now_ms:
            return None
        turns = (place.before + 1) * place.users * max(1, room.tenants) - 1
        ahead = room.mean.times(min(turns, room.waiting - 1))
        for other in pool.rooms:
            if (other.first_rank_ms or math.inf) < (room.first_rank_ms or math.inf):
                ahead += other.load
        drain_s = pool.drain_s(ahead + load_of(place.ticket), self.now_ms)
        if again_ms == math.inf or all(key.gate.waits_for_word for key in pool.keys):
            return Wait(None)
        wait_ms = max(next_ms, (drain_s or 0.0) * 1000, again_ms - self.now_ms)
        return Wait(int(min(self.now_ms + wait_ms, place.ticket.deadline_ms)))


def view(keys: Keys, *, ids: Sequence[str] = (), pools: Sequence[str] = ()) -> Command[WaitingJobs]:
    """Where these jobs wait, and the state of these pools and of those that the jobs wait for."""

    def read(reply: Any) -> WaitingJobs:
        now_ms = int(reply[0])
        places = [_place(words) for words in reply[1]]
        found = [_pool(words, now_ms) for words in reply[2]]
        return WaitingJobs(
            now_ms,
            {place.id: place for place in places if place is not None},
            {pool.name: pool for pool in found},
        )

    return compose("waiting_view", (), (keys.prefix, len(ids), *ids, *pools), read)


@dataclass(frozen=True, slots=True)
class UserQueues:
    """UserQueues of a room: (quoted tenant, waiting jobs). `next_first`: where to go on, or -1."""

    next_first: int
    counts: Sequence[tuple[str, int]]


def lines(keys: Keys, queue: str, pool: str, first: int) -> Command[UserQueues]:
    """How many jobs wait in up to 250 lines of a room, from place `first` on."""

    def read(reply: Any) -> UserQueues:
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        return UserQueues(int(reply[0]), [(text_of(tenant), int(n)) for tenant, n in pairs])

    args = (keys.prefix, queue, pool, first, LINES_PER_CALL)
    return compose("user_queues", (), args, read)


def _place(words: Sequence[Any]) -> Place | None:
    try:
        ticket = Ticket.decode(text_of(words[2]))
    except UnreadableMessage:
        return None
    again = [float(text_of(moment)) for moment in words[6:8] if moment]
    before, users = int(words[3]), max(1, int(words[4]))
    return Place(
        text_of(words[0]), text_of(words[1]), ticket, before, users, int(words[5]) == 1,
        max(again, default=None),
    )  # fmt: skip


def _pool(words: Sequence[Any], now_ms: int) -> WaitingPool:
    name, texts, of_all, keys, rooms = words
    given = [text_of(text) for text in texts]
    of_pool, of_provider, of_everyone = (limits_in_force(given[n], given[n + 1]) for n in (0, 2, 4))
    return WaitingPool(
        text_of(name),
        [_key(key, of_pool, of_provider, now_ms) for key in keys],
        levels(of_everyone, fields_of(of_all), now_ms, of_provider=False),
        [_room(room, text_of(name)) for room in rooms],
    )


def _key(
    words: Sequence[Any],
    of_pool: Mapping[str, LimitInForce],
    of_provider: Mapping[str, LimitInForce],
    now: int,
) -> PoolKey:
    bucket, provider_bucket, shut = (fields_of(words[n]) for n in (1, 2, 3))
    found = gate(shut, now)
    running = max(0, int(float(bucket.get("running") or 0)))
    return PoolKey(
        text_of(words[0]),
        levels(of_pool, bucket, now, of_provider=True, pace=found.pace),
        levels(of_provider, provider_bucket, now, of_provider=True, pace=found.pace),
        found,
        running,
    )


def _room(words: Sequence[Any], pool: str) -> WaitingQueue:
    first_rank = float(text_of(words[2]))
    sample: list[Load] = []
    oldest: int | None = None
    for text, learned in zip(words[4][::2], words[4][1::2], strict=True):
        try:
            ticket = Ticket.decode(text_of(text))
        except UnreadableMessage:
            continue
        sample.append(load_of(ticket, text_of(learned)))
        oldest = min(oldest or ticket.arrival_ms, ticket.arrival_ms)
    mean = sum(sample, Load()).times(1 / len(sample)) if sample else Load(jobs=1)
    return WaitingQueue(
        text_of(words[0]),
        pool,
        int(words[1]),
        None if first_rank < 0 else first_rank,
        int(words[3]),
        mean,
        sample[0] if sample else mean,
        oldest,
    )


def load_of(ticket: Ticket, learned: str = "") -> Load:
    """What a job with this ticket takes; `learned`: what answers of its kind were seen to need."""
    output = ticket.output_tokens
    if ticket.rule == "a":
        output = min(output, int(float(learned or DEFAULT_OUTPUT)))
    return Load(1, ticket.input_tokens, output)
