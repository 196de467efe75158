"""The scripts that compare what the broker claims to know with what it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, text_of


@dataclass(frozen=True, slots=True)
class Census:
    """How many jobs the broker claims to know, and how many it has; `queued`: those in lists."""

    present: int
    placed: int
    queued: int


def census(keys: Keys, queues: Iterable[str]) -> Command[Census]:
    """Counts jobs by their ids and by their places, in one moment."""
    names = [keys.present(), keys.messages(), *map(keys.queue, queues)]
    return compose("census", names, (), lambda reply: Census(*map(int, reply)))


@dataclass(frozen=True, slots=True)
class QueuePage:
    """Ids in a part of a queue. `next_first`: where the next part begins, -1 at the end."""

    next_first: int
    ids: list[str]


def waiting(name: str, first: int) -> Command[QueuePage]:
    """The ids of up to 1000 messages of the list of this name, from place `first` on."""
    return compose(
        "queue_page",
        (name,),
        (first,),
        lambda reply: QueuePage(reply[0], [*map(text_of, reply[1:])]),
    )


def absent(keys: Keys, ids: Sequence[str]) -> Command[list[str]]:
    """Those of these jobs that are neither leased nor deferred nor in a waiting room."""
    return compose("not_placed", (keys.messages(),), ids, lambda reply: [*map(text_of, reply)])
