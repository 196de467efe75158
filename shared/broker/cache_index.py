"""The cache index: which answers the cache holds, how large they are, and how often they served.

The scripts keep the index beside the answers. Here are the commands that count uses and remove
answers; `jobs.publish` stores an answer and its index entry in one script.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose, text_of


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What a worker found in the cache.

    `hits`, `misses` and `shared` are numbers of jobs; `saved_pico_usd` is what the hits had cost.
    `found` and `missing` are fingerprints: answers that were used, and answers that are gone.
    """

    hits: int
    misses: int
    shared: int
    saved_pico_usd: int
    found: Sequence[str]
    missing: Sequence[str]


def count_uses(keys: Keys, call: str, counts: CacheCounts) -> Command[int]:
    """Add these uses to the index; a command with a `call` id seen before adds nothing."""
    args: tuple[Word, ...] = (
        keys.prefix, call, counts.hits, counts.misses, counts.shared, counts.saved_pico_usd,
        len(counts.found), *counts.found, *counts.missing,
    )  # fmt: skip
    return compose("cache_uses", (), args, int)


def drop(keys: Keys, fingerprints: Iterable[str]) -> Command[int]:
    """Remove these answers; the reply is how many there were."""
    return compose("cache_drop", (), (keys.prefix, -1, *fingerprints), lambda reply: int(reply[0]))


def evict(keys: Keys, max_bytes: int) -> Command[bool]:
    """Remove expired answers and those over `max_bytes`; the reply says whether more is to do."""
    return compose("cache_drop", (), (keys.prefix, max_bytes), lambda reply: bool(reply[1]))


@dataclass(frozen=True, slots=True)
class CacheIndexEntry:
    """One answer in the index. `size` is in bytes; `ends_ms` is Unix ms of the server's clock."""

    size: int
    tenant: str
    model: str
    ends_ms: int


def entry_from(line: bytes | str) -> CacheIndexEntry | None:
    """Return the entry that a line of the index holds; None for a line of another form."""
    try:
        size, tenant, model, ends_ms = text_of(line).split("|")
        return CacheIndexEntry(int(size), unquote(tenant), model, int(ends_ms))
    except ValueError:
        return None
