"""Finds queues in which jobs wait and that no living worker serves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.living import LivingWorker, workers_of
from headgate.shared.broker.queues import lists_of
from headgate.shared.broker.script import Command, compose, text_of


@dataclass(frozen=True, slots=True)
class QueueLoads:
    """How many jobs wait in each queue, fetched or not, and which workers live.

    `paused`: the members that an operator has paused, as the scripts name them.
    """

    waiting: Mapping[str, int]
    workers: Sequence[LivingWorker]
    paused: Collection[str] = ()

    @property
    def unserved(self) -> dict[str, int]:
        """The waiting jobs of queues without a worker, but for queues that are paused.

        It does not know workers of the release before, which do not say what they serve.
        """
        return {
            queue: n
            for queue, n in sorted(self.waiting.items())
            if f"queue/{queue}" not in self.paused
            and not any(worker.serves(queue) for worker in self.workers)
        }


def queue_loads(keys: Keys, queues: Iterable[str]) -> Command[QueueLoads]:
    """Count the jobs that wait in these queues, and in all others that have a waiting queue."""

    def read(reply: Any) -> QueueLoads:
        waiting: Counter[str] = Counter()
        for queue, n in zip(reply[0][::2], reply[0][1::2], strict=True):
            waiting[text_of(queue)] += int(n)
        found = {queue: n for queue, n in waiting.items() if n > 0}
        return QueueLoads(found, workers_of(reply[1]), {text_of(one) for one in reply[2]})

    lists = [(queue, one) for queue in queues for one in lists_of(keys, queue)]
    return compose("queue_loads", (), (keys.prefix, *(w for pair in lists for w in pair)), read)
