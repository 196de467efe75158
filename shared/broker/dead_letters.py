"""The scripts of dead letters: bury and exhume."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.shared.broker.jobs import Buried, Lease, buried_of
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import refusal_record
from headgate.shared.broker.script import Command, Word, compose


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who waits for a message that is refused: Celery looks for a result under `job_id`.

    `group`: the group of tasks that the message belongs to. `ttl_s`: lifetime of the result.
    """

    job_id: str
    ttl_s: int
    group: str = ""

    def words(self, reason: str) -> tuple[Word, ...]:
        """Return the arguments of the scripts that answer it."""
        return self.job_id, refusal_record(self.job_id, reason), self.ttl_s, self.group


def bury(
    keys: Keys, *, lease: Lease, reason: str, waiter: Waiter | None = None
) -> Command[Buried | None]:
    """Make the message of a leased job a dead letter; the reply is None when it is not held.

    `waiter` finds a failure with the reason, unless there is a result already.
    """
    reason = " ".join(reason.split())
    answer = waiter.words(reason) if waiter is not None else ("", "", 0, "")
    args = (keys.prefix, lease.id, lease.owner, reason, *answer)
    return compose("bury", (), args, lambda reply: buried_of(reply) if reply else None)


def refuse(keys: Keys, waiter: Waiter, reason: str) -> Command[None]:
    """Let this waiter find a failure with the reason, unless there is a result already."""
    return compose("refuse", (), (keys.prefix, *waiter.words(reason)), lambda _: None)


def answer(keys: Keys, job_id: str, record: bytes, ttl_s: int) -> Command[None]:
    """Let Celery find this record under the id of a task, unless there is a result already."""
    return compose("refuse", (), (keys.prefix, job_id, record, ttl_s, ""), lambda _: None)


def exhume(
    keys: Keys,
    *,
    letter: str,
    head: bytes,
    queue: str | None = None,
    job_id: str = "",
    message: bytes = b"",
) -> Command[int]:
    """Remove a dead letter, and put its message (or `message`) on `queue`, if one is given.

    The reply is 1 when that was done, 0 when the letter is gone already, and -1 when the broker
    has the job: then nothing was done.
    """
    names = [keys.dead(), keys.letters(), keys.letter(letter)]
    if queue is not None:
        names += [keys.queue(queue), keys.wake(queue), keys.present(), keys.crashes()]
    return compose("exhume", names, (head, job_id, message), int)
