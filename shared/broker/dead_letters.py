"""The scripts of dead letters: bury and exhume."""

from __future__ import annotations

from headgate.shared.broker.jobs import Buried, Lease, buried_of
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose


def bury(keys: Keys, *, lease: Lease, reason: str) -> Command[Buried | None]:
    """Make the message of a leased job a dead letter; the reply is None when it is not held."""
    args = (keys.prefix, lease.id, lease.owner, " ".join(reason.split()))
    return compose("bury", (), args, lambda reply: buried_of(reply) if reply else None)


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
