"""The scripts that move jobs: send, fetch, renew, restore, defer, forget, publish, deliver."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import (
    Command,
    Word,
    compose,
    compose_joinable,
    text_of,
)

HANDICAPS_MS = (300_000, 900_000)
"""Of standard and bulk jobs, where the settings say nothing else."""

MAX_MESSAGE_BYTES = 24 * 1024 * 1024
"""A request of 10 MB can double when it is quoted as JSON in JSON. A larger message is no job."""

MAX_REPLY_BYTES = 4 * 1024 * 1024
"""Bytes of messages after which a fetch takes no more: the reply must fit a socket timeout."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that one fetch of one worker holds. `size`: bytes of its message."""

    id: str
    owner: str
    size: int = field(default=0, compare=False)


def _words(leases: Iterable[Lease]) -> list[Word]:
    return [word for lease in leases for word in (lease.id, lease.owner)]


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was fetched. `crashes`: how many workers lost the job before.

    `grant`: what the job holds, as `headgate.shared.admission.grant.decode` reads it; empty if the
    message has no ticket.
    """

    id: str
    queue: str
    crashes: int
    message: bytes
    grant: str = ""


@dataclass(frozen=True, slots=True)
class Buried:
    """A dead letter that was made. `size`: bytes of its message. `queue`: where it came from.

    `job_id`: of a message that was too large, if it could be read.
    """

    letter: str
    size: int
    queue: str
    job_id: str = ""


def buried_of(words: Sequence[Any]) -> Buried:
    """Read the words of a reply that describe a dead letter."""
    job_id = text_of(words[3]) if len(words) > 3 else ""
    return Buried(text_of(words[0]), int(words[1]), text_of(words[2]), job_id)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch returned.

    `server_ms`: the server's clock. `next_due_ms`: ms until something may change by itself, or
    None. `more`: the same call may bring more at once. `large`: dead letters made of messages over
    the limit. `wrong`: keys that should be lists and are not. `listed`: whether sub-lists that were
    asked for have messages left.
    """

    server_ms: int
    next_due_ms: int | None
    more: bool
    taken: list[Taken]
    large: list[Buried]
    wrong: list[str]
    listed: bool = False


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
    max_reply_bytes: int = MAX_REPLY_BYTES,
    handicaps_ms: tuple[int, int] = HANDICAPS_MS,
    endings: Sequence[str] = (),
) -> Command[Fetched]:
    """Acknowledge jobs, return lapsed ones to their queues, and take up to `want` that may start.

    `owner` must be another one in each call. `max_bytes`: of one message; a larger one becomes a
    dead letter. `max_reply_bytes`: bytes of messages after which no more are taken. `handicaps_ms`:
    standard and bulk jobs rank with interactive ones that are submitted so many ms later.
    `endings`: of the sub-lists to read as well, the most urgent first.
    """

    def read(reply: list[Any]) -> Fetched:
        jobs = [
            _taken(text_of(reply[i]), reply[i + 1], text_of(reply[i + 2]), reply[i + 3])
            for i in range(6, len(reply), 4)
        ]
        next_due_ms = None if reply[1] < 0 else reply[1]
        large = [buried_of(reply[3][i : i + 4]) for i in range(0, len(reply[3]), 4)]
        wrong = [*map(text_of, reply[4])]
        return Fetched(reply[0], next_due_ms, reply[2] == 1, jobs, large, wrong, reply[5] == 1)

    args: list[Word] = [keys.prefix, owner, lease_ms, want, max_bytes, max_reply_bytes, len(acked)]
    args += [len(endings), *endings, *_words(acked), *queues, *handicaps_ms]
    return compose("fetch", (), args, read)


@dataclass(frozen=True, slots=True)
class Renewed:
    """Jobs that the worker must stop: another worker has them (`lost`), or they are cancelled."""

    lost: list[str]
    cancelled: list[str]


def renew(
    keys: Keys, *, lease_ms: int, leases: Sequence[Lease], again: bool = True
) -> Command[Renewed]:
    """Extend these leases to `lease_ms` from now.

    `again`: leases that the server does not know are taken again. Otherwise they are lost.
    """

    def read(reply: list[Any]) -> Renewed:
        cut = 1 + int(reply[0])
        return Renewed([text_of(i) for i in reply[1:cut]], [text_of(i) for i in reply[cut:]])

    names = (keys.leases(), keys.owners(), keys.messages(), keys.present(), keys.cancels())
    return compose("renew", names, (lease_ms, int(again), *_words(leases)), read)


def restore(keys: Keys, *, leases: Sequence[Lease], unsent: bool = False) -> Command[int]:
    """Return these jobs to the heads of their queues; the reply is how many were.

    `unsent`: no request was sent under what they hold, so it costs nothing.
    """
    return compose("restore", (), (keys.prefix, int(unsent), *_words(leases)), int)


def defer(
    keys: Keys, *, lease: Lease, wait_ms: int, ticket: str = "", unsent: bool = False
) -> Command[bool]:
    """Put a leased job on the due list; the reply is False when the worker no longer holds it.

    `ticket`, if given, replaces the ticket of its message. `unsent`: as for `restore`.
    """
    args = (keys.prefix, lease.owner, lease.id, wait_ms, ticket, int(unsent))
    return compose("defer", (), args, bool)


def send(keys: Keys, queue: str, messages: Iterable[tuple[str, bytes]]) -> Command[int]:
    """Put (job id, message) pairs on `queue`, once each; the reply is how many were new."""
    names = (keys.queue(queue), keys.wake(queue), keys.present())
    return compose("send", names, (word for pair in messages for word in pair), int)


def forget(keys: Keys, ids: Iterable[str]) -> Command[int]:
    """Remove jobs that ended while they waited; the reply is how many were removed."""
    return compose("forget", (), (keys.prefix, *ids), int)


@dataclass(frozen=True, slots=True)
class CacheWrite:
    """An answer to keep in the cache for `ttl_ms`, and whose it is."""

    fingerprint: str
    value: bytes
    ttl_ms: int
    tenant: str
    model: str


UNBOUNDED = 1 << 50
"""A bound in bytes that nothing reaches."""


_quoted = lru_cache(maxsize=1024)(partial(quote, safe=""))


def publish(
    keys: Keys,
    *,
    job_id: str,
    record: bytes,
    ttl_s: int,
    results_bytes: int = UNBOUNDED,
    group: str | None = None,
    streamed: bool = False,
    answers: Sequence[CacheWrite] = (),
    cache_bytes: int = 0,
) -> Command[int]:
    """Store and publish the result of a job, and keep its answers in the cache.

    `ttl_s`: lifetime of the result; 0: it is published only. `results_bytes` and `cache_bytes`: the
    most that all results and the cache take. `group`: the Celery group that the job belongs to.
    `streamed`: its pieces expire soon. The reply is how many clients were waiting. Below 0 the
    answers were not kept, or the result not counted, because a key has the wrong type.
    """
    head = (keys.prefix, results_bytes, cache_bytes)
    words: list[Word] = [job_id, record, ttl_s, group or "", int(streamed), len(answers)]
    for one in answers:
        whose = f"{_quoted(one.tenant)}|{one.model}"
        words += [one.fingerprint, one.value, one.ttl_ms, whose]
    return compose_joinable("publish", head, words, int)


def evict_results(keys: Keys, max_bytes: int) -> Command[bool]:
    """Forget expired results and remove those over `max_bytes`; the reply: is more to do?"""
    return compose("results_evict", (), (keys.prefix, max_bytes), bool)


def deliver(
    keys: Keys,
    job_id: str,
    *,
    fence: int,
    n: int,
    text: str,
    ttl_ms: int,
    events: bytes = b"",
    dialect: str | None = None,
) -> Command[int]:
    """Add the `n`-th piece under this claim to the answer that is being made, once.

    `events`: the vendor's events of this piece, one a line, in this `dialect`; None: no events are
    wanted, so the piece is text alone. The reply is below 0 if the piece is lost.
    """
    args: tuple[Word, ...] = (f"{fence}-{n}", text, ttl_ms)
    if dialect is not None:
        args += (dialect, events)
    return compose("deliver", (keys.deltas(job_id),), args, int)
