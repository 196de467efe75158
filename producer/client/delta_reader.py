"""The pieces of one job's answer for one reader: what has been read and not been taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

Fields = dict[bytes, bytes]
Entries = list[tuple[bytes, Fields]]
"""Entries of a stream on Redis, as redis-py returns them: id and fields."""

MOST_ENTRIES = 32
MOST_BYTES = 8 * 1024
"""A reader that has so much to take gets no more; the rest stays on Redis until half is taken."""

BEGINNING = "0-0"


class DeltaReader:
    """The pieces of one job's answer that one reader has not taken yet.

    `changed` is set when there is more. `claims` counts the claims that have written pieces; when
    it grows after the first, another worker began the answer anew. `last` is the id of the last
    entry of the stream that was read. `has_gap`: a piece is missing, so no later one is handed on.
    `has_skipped`: pieces of an earlier claim were left out.
    `is_drained`: all that was on Redis has been read since `drain`. `read_more` asks for a read.
    """

    def __init__(self, job_id: str, read_more: Callable[[str], None]) -> None:
        self.job_id = job_id
        self.changed = asyncio.Event()
        self.claims = 0
        self.last = BEGINNING
        self.has_gap = False
        self.has_skipped = False
        self.is_drained = False
        self._read_more = read_more
        self._entries: deque[Fields] = deque()
        self._bytes = 0
        self._largest = MOST_BYTES // 8
        self._has_more = False
        self._drains = self._read_drains = False

    @property
    def is_new(self) -> bool:
        """Whether nothing has been read yet: it begins with the latest claim."""
        return self.last == BEGINNING

    @property
    def wanted(self) -> int:
        """How many entries the next read may bring: about `MOST_BYTES`, by the largest so far."""
        return max(1, min(MOST_ENTRIES, MOST_BYTES // self._largest))

    @property
    def is_full(self) -> bool:
        """Whether it takes no more for now."""
        return self._is_over(1)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take now."""
        return not self._entries

    @property
    def next_kind(self) -> bytes:
        """The dialect of the events of the next entry; empty if that is text alone."""
        return self._entries[0].get(b"k", b"") if self._entries else b""

    def take(self) -> Fields | None:
        """Return the fields of the next entry, None if there is none now."""
        if not self._entries:
            return None
        fields = self._entries.popleft()
        self._bytes -= _size(fields)
        if self._has_more and not self._is_over(0.5):
            self._has_more = False
            self._read_more(self.job_id)
        return fields

    def drop(self) -> None:
        """Drop what was read and not taken."""
        self._entries.clear()
        self._bytes = 0

    def drain(self) -> None:
        """Ask for a read that finds all there is: nothing more will be written."""
        if not self._drains:
            self._drains = True
            self._read_more(self.job_id)

    def read_begins(self) -> None:
        """Note that what the next `add` brings is read from now on."""
        self._read_drains = self._drains

    def skip_to(self, claim: bytes) -> None:
        """Leave out the pieces of claims before this one."""
        self.has_skipped = True
        self.last = f"{claim.decode()}-0"
        self._read_more(self.job_id)

    def add(self, entries: Entries, *, has_more: bool) -> None:
        """Add the entries of the stream; drop pieces of earlier claims and those after a gap."""
        for name, fields in entries:
            self._add(name, fields)
        if has_more and self.is_full:
            self._has_more = True
        elif has_more:
            self._read_more(self.job_id)
        else:
            self.is_drained = self.is_drained or self._read_drains
        if entries or self.is_drained:
            self.changed.set()

    def _is_over(self, share: float) -> bool:
        return len(self._entries) >= share * MOST_ENTRIES or self._bytes >= share * MOST_BYTES

    def _add(self, name: bytes, fields: Fields) -> None:
        before, _, last = self.last.partition("-")
        claim, _, number = name.decode().partition("-")
        if claim != before or not self.claims:
            last = "0"
            self.claims += 1
            self.has_gap = False
            self.drop()
        self.last = f"{claim}-{number}"
        self.has_gap = self.has_gap or int(number) != int(last) + 1
        if not self.has_gap:
            self._entries.append(fields)
            self._bytes += _size(fields)
            self._largest = max(self._largest, _size(fields))


def _size(fields: Fields) -> int:
    return len(fields[b"d"]) + len(fields.get(b"e", b""))


def claim_of(entry: tuple[bytes, Fields]) -> bytes:
    """Return the number of the claim that has written the entry."""
    return entry[0].partition(b"-")[0]
