"""The cache as its books tell of it, and answers thrown away at an operator's word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from headgate.producer.installation import Installation
from headgate.shared.broker import cache_index
from headgate.shared.broker.cache_index import CacheIndexEntry, entry_from
from headgate.shared.broker.script import fields_of, run
from headgate.shared.cost.price import from_pico, text
from headgate.shared.errors import InvalidRequest, WrongUse
from headgate.shared.job.ids import rfc3339

PAGE = 1000

TOP = 10
"""Models and tenants that are shown, those with the most bytes first."""

LONGEST_NAME = 128
"""Characters of a tenant's name, as in a request."""


@dataclass(frozen=True, slots=True)
class CacheShare:
    """What is kept of one model or one tenant."""

    name: str
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What is kept, within which bound, and what it was good for since the counts began.

    `hits`: answers found whose lifetime runs; `shared`: those that counted only for equal requests
    at once; `hit_rate`: both together, of all that were looked for. `oldest_use_at`: of the answer
    that would go first.
    """

    entries: int
    bytes: int
    bound_bytes: int
    hits: int
    shared: int
    misses: int
    hit_rate: float | None
    saved_usd: str
    evicted: int
    oldest_use_at: str | None
    models: list[CacheShare]
    tenants: list[CacheShare]

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def stats(at: Installation) -> CacheStats:
    """The books as they stand; answers that have expired meanwhile are left out."""
    counts = {name: int(value) for name, value in fields_of(_counts(at)).items()}
    by_model: dict[str, list[int]] = defaultdict(list)
    by_tenant: dict[str, list[int]] = defaultdict(list)
    for _, booked in _books(at, from_ms=_now_ms(at)):
        by_model[booked.model].append(booked.size)
        by_tenant[booked.tenant].append(booked.size)
    hits, shared, misses = (counts.get(name, 0) for name in ("hits", "shared", "misses"))
    asked = hits + shared + misses
    oldest: Any = at.redis.zrange(at.keys.cache_uses(), 0, 0, withscores=True)
    return CacheStats(
        entries=sum(map(len, by_model.values())),
        bytes=sum(map(sum, by_model.values())),
        bound_bytes=at.settings.cache_mb * 1024 * 1024,
        hits=hits,
        shared=shared,
        misses=misses,
        hit_rate=(hits + shared) / asked if asked else None,
        saved_usd=text(from_pico(counts.get("saved", 0))),
        evicted=counts.get("evicted", 0),
        oldest_use_at=rfc3339(int(oldest[0][1])) if oldest else None,
        models=_top(by_model),
        tenants=_top(by_tenant),
    )


def clear(at: Installation, tenant: str | None = None, model: str | None = None) -> int:
    """Throws away all answers, or those of this tenant and this model; how many there were."""
    if tenant is not None and (not 0 < len(tenant) <= LONGEST_NAME or "\0" in tenant):
        remedy = f"a name has 1 to {LONGEST_NAME} characters, without NUL"
        raise WrongUse("--tenant", tenant, remedy)
    if tenant is None and model is None:
        return _clear_all(at)
    wanted = None if model is None else _known(at, model)
    names = [
        name
        for name, booked in _books(at)
        if tenant in (None, booked.tenant) and wanted in (None, booked.model)
    ]
    return _drop(at, names)


def _clear_all(at: Installation) -> int:
    """Also what the books do not know, which a release before this one kept."""
    books = {
        at.keys.cached(): b"hash", at.keys.cache_counts(): b"hash",
        at.keys.cache_uses(): b"zset", at.keys.cache_ends(): b"zset",
    }  # fmt: skip
    broken = [key for key, kind in books.items() if _type(at, key) not in (kind, b"none")]
    if broken:
        at.redis.delete(*broken)
    names = {name for name, _ in _books(at)}
    start = at.keys.cache("")
    for key in at.redis.scan_iter(match=start + "?" * 64, count=PAGE):
        names.add(key.decode().removeprefix(start))
    return _drop(at, sorted(names))


def _drop(at: Installation, names: list[str]) -> int:
    return sum(
        run(at.redis, cache_index.drop(at.keys, names[first : first + PAGE]))
        for first in range(0, len(names), PAGE)
    )


def _books(at: Installation, from_ms: int = 0) -> Iterator[tuple[str, CacheIndexEntry]]:
    """Each answer that ends after `from_ms`, by its end: what goes meanwhile shifts no page."""
    seen_at, seen = float(from_ms), 0
    while True:
        found: Any = at.redis.zrangebyscore(
            at.keys.cache_ends(), seen_at, "+inf", start=seen, num=PAGE, withscores=True
        )
        if not found:
            return
        names = [name for name, _ in found]
        lines: Any = at.redis.hmget(at.keys.cached(), names)
        for name, line in zip(names, lines, strict=True):
            booked = None if line is None else entry_from(line)
            if booked is not None:
                yield name.decode(), booked
        last = found[-1][1]
        same = sum(1 for _, end in found if end == last)
        seen = seen + same if last == seen_at else same
        seen_at = last


def _known(at: Installation, model: str) -> str:
    try:
        return at.catalog.model(model, "--model").name
    except InvalidRequest as error:
        if any(booked.model == model for _, booked in _books(at)):
            return model  # the catalog had it once
        raise WrongUse("--model", model, error.remedy) from None


def _top(sizes: dict[str, list[int]]) -> list[CacheShare]:
    parts = [CacheShare(name, len(found), sum(found)) for name, found in sizes.items()]
    return sorted(parts, key=lambda part: (-part.bytes, part.name))[:TOP]


def _counts(at: Installation) -> Any:
    return at.redis.hgetall(at.keys.cache_counts())


def _type(at: Installation, key: str) -> Any:
    return at.redis.type(key)


def _now_ms(at: Installation) -> int:
    found: Any = at.redis.time()
    return int(found[0]) * 1000
