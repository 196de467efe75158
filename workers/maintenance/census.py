"""Calls the scripts of maintenance: whose turn it is, and which jobs the broker has.

They compare the jobs that the broker claims to know with the jobs that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import lists_of
from headgate.shared.broker.script import Command, compose, text_of
from headgate.workers.clients.redis_batcher import RedisBatcher


@dataclass(frozen=True, slots=True)
class JobCounts:
    """How many jobs the broker claims to know, how many it has, and how many are in lists."""

    present: int
    placed: int
    queued: int


def count_jobs(keys: Keys, queues: Iterable[str]) -> Command[JobCounts]:
    """Count jobs by their ids and by their places, at one moment."""
    lists = [key for queue in queues for key in lists_of(keys, queue)]
    names = [keys.present(), keys.messages(), *lists]
    return compose("census", names, (), lambda reply: JobCounts(*map(int, reply)))


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Ids in a part of a queue. The next part begins at `next_first`; -1 at the end."""

    next_first: int
    ids: list[str]


def queue_page(name: str, first: int) -> Command[QueuePage]:
    """Read the ids of up to 1000 messages of the list of this name, from place `first` on."""
    return compose(
        "queue_page",
        (name,),
        (first,),
        lambda reply: QueuePage(reply[0], [*map(text_of, reply[1:])]),
    )


def not_placed(keys: Keys, ids: Sequence[str]) -> Command[list[str]]:
    """Find those of these jobs that are neither leased nor deferred nor in a waiting queue."""
    return compose("not_placed", (keys.messages(),), ids, lambda reply: [*map(text_of, reply)])


def maintenance_turn(keys: Keys, worker: str, turn_ms: int) -> Command[bool]:
    """Take the turn for `turn_ms`, or go on with it; the reply is False if another has it."""
    return compose("turn", (keys.sweeper(),), (keys.prefix, worker, turn_ms), bool)


async def holds_turn(batcher: RedisBatcher, keys: Keys, worker: str) -> bool:
    """Return whether the worker has the turn for maintenance now."""
    return bool(await batcher.send("GET", keys.sweeper()) == worker.encode())
