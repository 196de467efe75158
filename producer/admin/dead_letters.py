"""Lists, retries and drops dead letters: messages that no worker can read, and jobs given up.

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
"""How many heads are read at a time."""

CHUNK_BYTES = 1024 * 1024

State = Literal["retried", "dropped", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `job_id`: empty if the message has none. `size`: bytes of the message."""

    id: str
    died_at_ms: int
    queue: str
    reason: str
    job_id: str
    size: int
    head: bytes
    message: bytes | None = None
    """Only of a letter that release 0.1 wrote, which has the message in its head."""

    @classmethod
    def read(cls, head: bytes) -> DeadLetter:
        """Parse the head of a letter, in the form of this release or of release 0.1."""
        parts = head.split(b"\n")
        if parts[0] == b"letter" and len(parts) == 7:
            letter, at_ms, queue, reason, job_id, size = (
                part.decode("utf-8", "replace") for part in parts[1:]
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
    """Chooses letters from one of `queues` whose reason contains one of `reasons`.

    An empty collection allows all.
    """

    queues: Collection[str] = ()
    reasons: Collection[str] = ()

    def fits(self, letter: DeadLetter) -> bool:
        """Return whether the filter chooses the letter."""
        if self.queues and letter.queue not in self.queues:
            return False
        reason = letter.reason.lower()
        return not self.reasons or any(part.lower() in reason for part in self.reasons)


@dataclass(frozen=True, slots=True)
class LetterOutcome:
    """What happened to a letter; `text` describes it."""

    letter: DeadLetter
    state: State
    text: str


def newest(
    client: redis.Redis, keys: Keys, wanted: LetterFilter, before: str | None
) -> Iterator[DeadLetter]:
    """Yield the chosen letters, the newest first; `before`: only those older than this id."""
    first, seen = 0, set[bytes]()
    passed = before is None
    while heads := _page(client, keys, first, first + PAGE - 1):
        for head in heads:
            if head in seen:  # new letters have shifted this one to the next page
                continue
            letter = DeadLetter.read(head)
            if passed and wanted.fits(letter):
                yield letter
            passed = passed or letter.id == before
        seen, first = set(heads), first + PAGE


def find(client: redis.Redis, keys: Keys, ids: Collection[str]) -> dict[str, DeadLetter]:
    """Return the letters of these ids, by id; ids that do not exist are missing."""
    found: dict[str, DeadLetter] = {}
    for letter in newest(client, keys, LetterFilter(), None):
        if letter.id in ids:
            found[letter.id] = letter
            if len(found) == len(set(ids)):
                break
    return found


def beginning(client: redis.Redis, keys: Keys, letter: DeadLetter, size: int) -> bytes:
    """Return the first `size` bytes of the message."""
    if letter.message is not None:
        return letter.message[:size]
    part: Any = client.getrange(keys.letter(letter.id), 0, size - 1)
    return bytes(part)


def message(client: redis.Redis, keys: Keys, letter: DeadLetter) -> Iterator[bytes]:
    """Yield the message byte for byte, in pieces of at most `CHUNK_BYTES`."""
    if letter.message is not None:
        yield letter.message
        return
    for first in range(0, letter.size, CHUNK_BYTES):
        part: Any = client.getrange(keys.letter(letter.id), first, first + CHUNK_BYTES - 1)
        yield part


def drop(at: Installation, letter: DeadLetter) -> LetterOutcome:
    """Delete the letter."""
    command = dead_letters.exhume(at.keys, letter=letter.id, head=letter.head)
    if script.run(at.redis, command):
        return LetterOutcome(letter, "dropped", "is dropped")
    return _gone(letter)


def retry(at: Installation, letter: DeadLetter) -> LetterOutcome:
    """Put the message back on its queue, and its job back to queued; or return why not."""
    if letter.queue not in all_queues(at.catalog.classes):
        return LetterOutcome(
            letter, "refused", f"is from {letter.queue!r}, which is no queue of jobs"
        )
    text = letter.message or b""
    again = None
    if letter.job_id:
        again = reopen(at.engine, letter.job_id, gave_up=letter.reason.startswith(GIVEN_UP))
        if isinstance(again, NotReopened):
            return LetterOutcome(letter, "refused", f"its job {letter.job_id} {again.reason}")
        if again is not None:
            text = again
        at.redis.delete(at.keys.result(letter.job_id))  # callers must wait for the new result
    command = dead_letters.exhume(
        at.keys, letter=letter.id, head=letter.head, queue=letter.queue, job_id=letter.job_id,
        message=text,
    )  # fmt: skip
    match script.run(at.redis, command):
        case 1:
            return LetterOutcome(letter, "retried", f"is on {letter.queue} again")
        case -1 if again is None:
            return LetterOutcome(
                letter, "refused", f"its job {letter.job_id} already waits or runs"
            )
        case -1:  # maintenance has found the row in between, and sent the job again
            drop(at, letter)
            return LetterOutcome(letter, "retried", f"is on {letter.queue} again")
        case _:
            return _gone(letter)


def _gone(letter: DeadLetter) -> LetterOutcome:
    return LetterOutcome(letter, "gone", "is gone: another command has retried or dropped it")


def _page(client: redis.Redis, keys: Keys, first: int, last: int) -> list[bytes]:
    found: Any = client.lrange(keys.dead(), first, last)
    return list(found)
