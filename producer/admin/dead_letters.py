"""Dead letters: what no worker could read, and jobs that gave up; listed, sent again, thrown away.

Heads are read in pages and messages one by one: there may be thousands, and each may be large.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import redis

from headgate.producer.admin.reopen import NotReopened, reopen
from headgate.producer.installation import Installation
from headgate.shared.broker import dead_letters, script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import all_queues
from headgate.shared.broker.results import GIVEN_UP

PAGE = 200
"""Heads read at a time."""

CHUNK_BYTES = 1024 * 1024

State = Literal["retried", "dropped", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `job_id` is empty where the message has none; `size` in bytes."""

    id: str
    died_at_ms: int
    queue: str
    reason: str
    job_id: str
    size: int
    head: bytes
    message: bytes | None = None
    """Of a letter that release 0.1 wrote: there the message stands in the head."""

    @classmethod
    def read(cls, head: bytes) -> DeadLetter:
        """The letter of a head, whoever wrote it."""
        words = head.split(b"\n")
        if words[0] == b"letter" and len(words) == 7:
            letter, at_ms, queue, reason, job_id, size = (
                word.decode("utf-8", "replace") for word in words[1:]
            )
            return cls(letter, int(at_ms), queue, reason, job_id, int(size), head)
        at, queue_, reason_, message = [*head.split(b"\n", 3), b"", b"", b""][:4]
        return cls(
            hashlib.sha256(head).hexdigest()[:12],
            int(at) if at.isdigit() else 0,
            queue_.decode("utf-8", "replace"),
            reason_.decode("utf-8", "replace"),
            "",
            len(message),
            head,
            message,
        )


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant: those with one of `queues` and one of `reasons` (parts of words)."""

    queues: Collection[str] = ()
    reasons: Collection[str] = ()

    def fits(self, letter: DeadLetter) -> bool:
        """Whether the letter is meant."""
        if self.queues and letter.queue not in self.queues:
            return False
        reason = letter.reason.lower()
        return not self.reasons or any(part.lower() in reason for part in self.reasons)


@dataclass(frozen=True, slots=True)
class LetterOutcome:
    """What became of a letter, and why."""

    letter: DeadLetter
    state: State
    words: str


def newest(
    client: redis.Redis, keys: Keys, wanted: LetterFilter, before: str | None
) -> Iterator[DeadLetter]:
    """The letters that are meant, the newest first; `before`: only those older than this one."""
    first, seen = 0, set[bytes]()
    passed = before is None
    while heads := _page(client, keys, first, first + PAGE - 1):
        for head in heads:
            if head in seen:  # new letters have moved this one to the next page
                continue
            letter = DeadLetter.read(head)
            if passed and wanted.fits(letter):
                yield letter
            passed = passed or letter.id == before
        seen, first = set(heads), first + PAGE


def find(client: redis.Redis, keys: Keys, ids: Collection[str]) -> dict[str, DeadLetter]:
    """The letters of these ids; those that do not exist are left out."""
    found: dict[str, DeadLetter] = {}
    for letter in newest(client, keys, LetterFilter(), None):
        if letter.id in ids:
            found[letter.id] = letter
            if len(found) == len(set(ids)):
                break
    return found


def beginning(client: redis.Redis, keys: Keys, letter: DeadLetter, size: int) -> bytes:
    """The first `size` bytes of the message."""
    if letter.message is not None:
        return letter.message[:size]
    part: Any = client.getrange(keys.letter(letter.id), 0, size - 1)
    return bytes(part)


def message(client: redis.Redis, keys: Keys, letter: DeadLetter) -> Iterator[bytes]:
    """The message byte for byte, in pieces."""
    if letter.message is not None:
        yield letter.message
        return
    for first in range(0, letter.size, CHUNK_BYTES):
        part: Any = client.getrange(keys.letter(letter.id), first, first + CHUNK_BYTES - 1)
        yield part


def drop(at: Installation, letter: DeadLetter) -> LetterOutcome:
    """The letter is gone."""
    command = dead_letters.exhume(at.keys, letter=letter.id, head=letter.head)
    if script.run(at.redis, command):
        return LetterOutcome(letter, "dropped", "is dropped")
    return _gone(letter)


def retry(at: Installation, letter: DeadLetter) -> LetterOutcome:
    """The message is on its queue again, and its job on record as queued; or why not."""
    if letter.queue not in all_queues(at.catalog.classes):
        return LetterOutcome(
            letter, "refused", f"came from {letter.queue!r}, which is no queue of jobs"
        )
    text = letter.message or b""
    again = None
    if letter.job_id:
        again = reopen(at.engine, letter.job_id, gave_up=letter.reason.startswith(GIVEN_UP))
        if isinstance(again, NotReopened):
            return LetterOutcome(letter, "refused", f"its job {letter.job_id} {again.words}")
        if again is not None:
            text = again
            at.redis.delete(at.keys.result(letter.job_id))  # who asks now is to wait
    command = dead_letters.exhume(
        at.keys, letter=letter.id, head=letter.head, queue=letter.queue, job_id=letter.job_id,
        message=text,
    )  # fmt: skip
    match script.run(at.redis, command):
        case 1:
            return LetterOutcome(letter, "retried", f"is on {letter.queue} again")
        case -1 if again is None:
            return LetterOutcome(
                letter, "refused", f"its job {letter.job_id} waits or runs already"
            )
        case -1:  # a sweep has found the row in between, and sent the job
            drop(at, letter)
            return LetterOutcome(letter, "retried", f"is on {letter.queue} again")
        case _:
            return _gone(letter)


def _gone(letter: DeadLetter) -> LetterOutcome:
    return LetterOutcome(letter, "gone", "is gone: somebody else has sent it again or dropped it")


def _page(client: redis.Redis, keys: Keys, first: int, last: int) -> list[bytes]:
    found: Any = client.lrange(keys.dead(), first, last)
    return list(found)
