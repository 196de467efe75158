"""The cache as its books tell of it, and the scripts that write them beside `scripts.publish`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose, text_of


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """What a worker found in the cache. `hits` and `shared`: how often; `saved`: in pico-USD."""

    hits: int
    misses: int
    shared: int
    saved_pico_usd: int
    found: Sequence[str]
    missing: Sequence[str]


def heard(keys: Keys, call: str, told: CacheCounts) -> Command[int]:
    """The books know of these uses; `call` must be another one each time."""
    args: tuple[Word, ...] = (
        keys.prefix, call, told.hits, told.misses, told.shared, told.saved_pico_usd,
        len(told.found), *told.found, *told.missing,
    )  # fmt: skip
    return compose("cache_uses", (), args, int)


def drop(keys: Keys, fingerprints: Iterable[str]) -> Command[int]:
    """Throws these answers away; how many there were."""
    return compose("cache_drop", (), (keys.prefix, -1, *fingerprints), lambda reply: int(reply[0]))


def shed(keys: Keys, most_bytes: int) -> Command[bool]:
    """Throws away what has expired and what is over the bound; whether there is more to do."""
    return compose("cache_drop", (), (keys.prefix, most_bytes), lambda reply: bool(reply[1]))


@dataclass(frozen=True, slots=True)
class CacheIndexEntry:
    """One answer in the books. `ends_ms`: by the server's clock."""

    size: int
    tenant: str
    model: str
    ends_ms: int


def booked_of(line: bytes | str) -> CacheIndexEntry | None:
    """What a line of the books says; None for one of another form."""
    try:
        size, tenant, model, ends_ms = text_of(line).split("|")
        return CacheIndexEntry(int(size), unquote(tenant), model, int(ends_ms))
    except ValueError:
        return None
