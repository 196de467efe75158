"""The scripts that move jobs: send, fetch, renew, defer, restore, forget, publish, deliver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import (
    Command,
    Word,
    compose,
    text_of,
)

HEAD_STARTS_MS = (300_000, 900_000)
"""Of standard and bulk jobs, where the settings say nothing else."""

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""A request of 10 MB can double when it is quoted as JSON in JSON; a larger message is no job."""

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""Bytes of messages after which a fetch takes no more: it must arrive within a socket timeout."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One job held by one fetch of one worker. `size`: bytes of its message."""

    id: str
    owner: str
    size: int = field(default=0, compare=False)


def _words(leases: Iterable[Lease]) -> list[Word]:
    return [word for lease in leases for word in (lease.id, lease.owner)]


@dataclass(frozen=True, slots=True)
class Taken:
    """A message with its lease. `crashes`: how many workers lost the job before.

    `grant`: what it holds, as `headgate.shared.admission.grant.decode` reads it.
    """

    id: str
    queue: str
    crashes: int
    message: bytes
    grant: str = ""


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter that was made, the bytes of its message, and the queue it came from."""

    letter: str
    size: int
    queue: str


def buried_of(words: Sequence[Any]) -> Buried:
    """The dead letter that these words of a reply tell of."""
    return Buried(text_of(words[0]), int(words[1]), text_of(words[2]))


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one round trip brought. `next_due_ms`: until something may change by itself, or None.

    `more`: the same call may bring more at once.
    `large`: dead letters made of messages over the limit. `wrong`: keys that should be lists.
    """

    server_ms: int
    next_due_ms: int | None
    more: bool
    taken: list[Taken]
    large: list[Buried]
    wrong: list[str]


def _taken(job_id: str, crashes: int, grant: str, stored: bytes) -> Taken:
    queue, _, message = stored.partition(b"\n")
    return Taken(job_id, queue.decode(), crashes, message, grant)


def fetch(
    keys: Keys,
    *,
    owner: str,
    lease_ms: int,
    want: int,
    queues: Sequence[str],
    acked: Sequence[Lease] = (),
    max_bytes: int = MAX_MESSAGE_BYTES,
    budget: int = MAX_REPLY_BYTES,
    head_starts_ms: tuple[int, int] = HEAD_STARTS_MS,
) -> Command[Fetched]:
    """Acknowledges, restores, and takes up to `want` jobs of `queues` that may start now.

    `owner` must be another one in each call. `head_starts_ms`: how long standard and bulk jobs
    wait until they rank with interactive ones that come then.
    """

    def read(reply: list[Any]) -> Fetched:
        jobs = [
            _taken(text_of(reply[i]), reply[i + 1], text_of(reply[i + 2]), reply[i + 3])
            for i in range(5, len(reply), 4)
        ]
        next_due_ms = None if reply[1] < 0 else reply[1]
        large = [buried_of(reply[3][i : i + 3]) for i in range(0, len(reply[3]), 3)]
        return Fetched(reply[0], next_due_ms, reply[2] == 1, jobs, large, [*map(text_of, reply[4])])

    names = [keys.leases(), keys.owners(), keys.messages(), keys.due(), keys.present()]
    names += [keys.crashes(), keys.dead(), keys.pulse(), keys.cancels(), keys.letters()]
    for queue in queues:
        names += [keys.queue(queue), keys.wake(queue)]
    args: list[Word] = [owner, lease_ms, want, max_bytes, budget, keys.prefix, len(acked)]
    args += [*_words(acked), *queues, *head_starts_ms]
    return compose("fetch", names, args, read)


@dataclass(frozen=True, slots=True)
class Renewed:
    """Jobs that the worker must stop: another worker has them (`lost`), or nobody wants them."""

    lost: list[str]
    cancelled: list[str]


def renew(
    keys: Keys, *, lease_ms: int, leases: Sequence[Lease], again: bool = True
) -> Command[Renewed]:
    """Lengthens these leases by `lease_ms` from now.

    `again`: those that the server does not know are taken again; else they are lost.
    """

    def read(reply: list[Any]) -> Renewed:
        cut = 1 + int(reply[0])
        return Renewed([text_of(i) for i in reply[1:cut]], [text_of(i) for i in reply[cut:]])

    names = (keys.leases(), keys.owners(), keys.messages(), keys.present(), keys.cancels())
    return compose("renew", names, (lease_ms, int(again), *_words(leases)), read)


def restore(keys: Keys, *, leases: Sequence[Lease], unsent: bool = False) -> Command[int]:
    """Gives the jobs back to the heads of their queues; how many were.

    `unsent`: nothing was sent under what they hold, which costs nothing then.
    """
    names = (keys.leases(), keys.owners(), keys.messages(), keys.present())
    return compose("restore", names, (keys.prefix, int(unsent), *_words(leases)), int)


def defer(
    keys: Keys, *, lease: Lease, wait_ms: int, ticket: str = "", unsent: bool = False
) -> Command[bool]:
    """Puts a leased job on the due-list; False when the worker no longer holds it.

    `ticket`, if given, counts from now on in place of its message's. `unsent`: as for `restore`.
    """
    names = (
        keys.leases(), keys.owners(), keys.messages(), keys.due(), keys.crashes(), keys.cancels(),
    )  # fmt: skip
    args = (lease.owner, lease.id, wait_ms, keys.prefix, ticket, int(unsent))
    return compose("defer", names, args, bool)


def send(keys: Keys, queue: str, messages: Iterable[tuple[str, bytes]]) -> Command[int]:
    """Puts (job id, message) pairs on `queue`, once each; how many were new to the broker."""
    names = (keys.queue(queue), keys.wake(queue), keys.present())
    return compose("send", names, (word for pair in messages for word in pair), int)


def forget(keys: Keys, ids: Iterable[str]) -> Command[int]:
    """Takes jobs that have ended on record out of their lines and the due-list; how many were."""
    return compose("forget", (), (keys.prefix, *ids), int)


@dataclass(frozen=True, slots=True)
class CacheWrite:
    """An answer that is kept for `ttl_ms`, and whose it is."""

    fingerprint: str
    value: bytes
    ttl_ms: int
    tenant: str
    model: str


def publish(
    keys: Keys,
    *,
    job_id: str,
    record: bytes,
    ttl_s: int,
    answers: Sequence[CacheWrite] = (),
    cache_bytes: int = 0,
) -> Command[int]:
    """Stores the result of a job and tells it; keeps its answers within the bound of the cache.

    How many were waiting; below 0: the answers were not kept, since the books cannot be written.
    """
    args: list[Word] = [record, ttl_s, keys.prefix, cache_bytes]
    for one in answers:
        whose = f"{quote(one.tenant, safe='')}|{one.model}"
        args += [one.fingerprint, one.value, one.ttl_ms, whose]
    return compose("publish", (keys.result(job_id),), args, int)


def deliver(keys: Keys, job_id: str, *, fence: int, n: int, text: str, ttl_ms: int) -> Command[int]:
    """Adds the `n`-th piece under this claim to the answer that is being made; once."""
    return compose("deliver", (keys.deltas(job_id),), (f"{fence}-{n}", text, ttl_ms), int)
