"""The scripts of dead letters, in the manner of `shared/broker/script.py`."""

from __future__ import annotations

from headgate.shared.broker.jobs import Buried, Lease, buried_of
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose


def bury(keys: Keys, *, lease: Lease, reason: str) -> Command[Buried | None]:
    """Makes the message of a leased job a dead letter; None where it is no longer held."""
    names = [keys.leases(), keys.owners(), keys.messages(), keys.present(), keys.crashes()]
    names += [keys.cancels(), keys.dead(), keys.letters()]
    args = (keys.prefix, lease.id, lease.owner, " ".join(reason.split()))
    return compose("bury", names, args, lambda reply: buried_of(reply) if reply else None)


def exhume(
    keys: Keys,
    *,
    letter: str,
    head: bytes,
    queue: str | None = None,
    job_id: str = "",
    message: bytes = b"",
) -> Command[int]:
    """Takes a dead letter away, and puts its message (or `message`) on `queue`, if one is given.

    1: done; 0: the letter is gone already; -1: the broker has the job, and nothing was done.
    """
    names = [keys.dead(), keys.letters(), keys.letter(letter)]
    if queue is not None:
        names += [keys.queue(queue), keys.wake(queue), keys.present(), keys.crashes()]
    return compose("exhume", names, (head, job_id, message), int)
