"""Reads where jobs wait, and the state of all that may keep them waiting, in one round trip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headgate.producer.waits.callers import CallerFigures
from headgate.producer.waits.pauses import Pause, pause_of
from headgate.producer.waits.pools import WaitingPool, WaitingQueue, parse_pool
from headgate.shared.admission.breakers import ModelHealth, health_of
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.living import LivingWorker, workers_of
from headgate.shared.broker.script import Command, compose, fields_of, text_of
from headgate.shared.errors import UnreadableMessage

IDS_PER_CALL = 200
"""How many jobs one call looks up; it blocks Redis for about 4 ms."""

USER_QUEUES_PER_CALL = 250
"""How many user queues one call counts; it blocks Redis for about 1 ms."""


@dataclass(frozen=True, slots=True)
class Leased:
    """A worker holds the job: it runs, or is about to."""


@dataclass(frozen=True, slots=True)
class InQueue:
    """The job is in its queue, from which no worker has fetched it yet."""


@dataclass(frozen=True, slots=True)
class OnDueList:
    """The job goes back to its queue at this moment, by the server's clock."""

    queue: str
    ticket: Ticket | None
    at_ms: int


@dataclass(frozen=True, slots=True)
class FollowsEqual:
    """The job waits for the answer to an equal one; `leader` is empty when that has ended."""

    queue: str
    leader: str


@dataclass(frozen=True, slots=True)
class InWaitingQueue:
    """The job waits in the waiting queue of its pool.

    `ahead`: jobs ahead of it in its user queue. `users`: how many users of its tenant take turns.
    `user_at_ms`, `tenant_at_ms`: when its user and its tenant, who were passed over, are tried
    again.
    """

    queue: str
    ticket: Ticket
    ahead: int
    users: int
    user_at_ms: float | None = None
    tenant_at_ms: float | None = None


Place = Leased | InQueue | OnDueList | FollowsEqual | InWaitingQueue


@dataclass(frozen=True, slots=True)
class Seen:
    """What Redis held in one moment.

    `places`: by job id, those that the broker has. `pools`: by name. `breakers`: by model
    (provider/model), one for each key. `paused`: members as the scripts name them. `unlisted`:
    workers of the release before run, which do not say what they serve.
    """

    now_ms: int
    places: Mapping[str, Place]
    pools: Mapping[str, WaitingPool]
    callers: CallerFigures
    breakers: Mapping[str, Sequence[ModelHealth]] = field(default_factory=dict)
    workers: Sequence[LivingWorker] = ()
    paused: Mapping[str, Pause] = field(default_factory=dict)
    unlisted: bool = False

    def serves(self, queue: str) -> bool:
        """Return whether a living worker fetches from this queue."""
        return self.unlisted or any(worker.serves(queue) for worker in self.workers)

    def has_key_of(self, provider: str) -> bool:
        """Return whether a living worker has a key of this provider."""
        return self.unlisted or any(worker.has_key_of(provider) for worker in self.workers)

    def waiting_queue(self, place: InWaitingQueue) -> WaitingQueue | None:
        """Return the waiting queue of this place."""
        pool = self.pools.get(place.ticket.pool)
        queues = pool.queues if pool is not None else ()
        return next((one for one in queues if one.queue == place.queue), None)


def view(keys: Keys, *, ids: Sequence[str] = (), pools: Sequence[str] = ()) -> Command[Seen]:
    """Return the command that reads what these jobs wait for. `pools`: further pools to read."""
    return compose("waiting_view", (), (keys.prefix, len(ids), *ids, *pools), _seen)


def _seen(reply: Any) -> Seen:
    now_ms = int(reply[0])
    pools = [parse_pool(fields, now_ms) for fields in reply[4]]
    breakers: defaultdict[str, list[ModelHealth]] = defaultdict(list)
    for model, key, fields in reply[9]:
        health = health_of(text_of(model), text_of(key), fields_of(fields), now_ms)
        breakers[health.model].append(health)
    notes = fields_of(reply[12])
    return Seen(
        now_ms,
        {text_of(fields[0]): place for fields in reply[3] if (place := _place(fields))},
        {pool.name: pool for pool in pools},
        _callers(now_ms, reply),
        breakers,
        workers_of(reply[10]),
        {text_of(member): pause_of(notes.get(text_of(member), "")) for member in reply[11]},
    )


def _callers(now_ms: int, reply: Any) -> CallerFigures:
    texts = [[text_of(word) for word in words] for words in reply[5]]
    return CallerFigures(
        now_ms,
        limits={words[0]: words[1] for words in texts if words[1]},
        overrides={words[0]: words[2] for words in texts if words[2]},
        budgets={words[0]: words[3] for words in texts if words[3]},
        buckets={text_of(name): fields_of(fields) for name, fields in reply[6]},
        sums={
            (text_of(scope), text_of(period)): (int(spent), int(held))
            for scope, period, spent, held in reply[7]
        },
        read={(text_of(period), text_of(scope)) for period, scope in reply[8]},
        periods=(text_of(reply[1]), text_of(reply[2])),
    )


def _place(fields: Sequence[Any]) -> Place | None:
    kind: Literal["leased", "listed", "due", "follows", "waits"] = text_of(fields[1])  # type: ignore[assignment]  # its own words
    if kind == "leased":
        return Leased()
    if kind == "listed":
        return InQueue()
    queue = text_of(fields[2])
    if kind == "follows":
        return FollowsEqual(queue, text_of(fields[4]))
    ticket = _ticket(text_of(fields[3]))
    if kind == "due":
        return OnDueList(queue, ticket, int(float(text_of(fields[4]))))
    if ticket is None:
        return InQueue()
    user_at, tenant_at = (float(text_of(moment)) if moment else None for moment in fields[6:8])
    return InWaitingQueue(queue, ticket, int(fields[4]), max(1, int(fields[5])), user_at, tenant_at)


def _ticket(text: str) -> Ticket | None:
    try:
        return Ticket.decode(text)
    except UnreadableMessage:
        return None


@dataclass(frozen=True, slots=True)
class UserQueue:
    """The jobs of one user that wait in a waiting queue. Names are quoted. `first`: its ticket."""

    tenant: str
    user: str
    waiting: int
    first: Ticket | None


@dataclass(frozen=True, slots=True)
class UserQueues:
    """Some user queues of a waiting queue. `next_first`: the position of the next page, or -1."""

    next_first: int
    queues: Collection[UserQueue]


def user_queues(keys: Keys, queue: str, pool: str, first: int) -> Command[UserQueues]:
    """Return the command that counts the jobs of up to 250 user queues, from `first` on."""

    def read(reply: Any) -> UserQueues:
        rows = zip(reply[1::4], reply[2::4], reply[3::4], reply[4::4], strict=True)
        found = [
            UserQueue(text_of(tenant), text_of(user), int(n), _ticket(text_of(ticket)))
            for tenant, user, n, ticket in rows
        ]
        return UserQueues(int(reply[0]), found)

    args = (keys.prefix, queue, pool, first, USER_QUEUES_PER_CALL)
    return compose("user_queues", (), args, read)
