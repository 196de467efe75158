"""Reads the figures of the cache from its index, and deletes answers for an operator."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from headgate.producer.installation import Installation
from headgate.shared.broker import cache_index
from headgate.shared.broker.cache_index import CacheIndexEntry, entry_from
from headgate.shared.broker.script import fields_of, run
from headgate.shared.cost.price import usd_text
from headgate.shared.errors import InvalidRequest, WrongUse
from headgate.shared.job.ids import rfc3339

PAGE = 1000

TOP = 10
"""How many models and tenants are shown, those with the most bytes first."""

LONGEST_NAME = 128
"""Most characters of a tenant's name, as in a request."""


@dataclass(frozen=True, slots=True)
class CacheShare:
    """The cached answers of one model or one tenant."""

    name: str
    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The size of the cache, and its figures since counting began.

    `hits`: answers found within their lifetime. `shared`: expired answers found that still served
    equal requests at the same time. `hit_rate`: the share of both in all lookups.
    `oldest_use_at`: the last use of the answer that is evicted next.
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
        """Return the figures as `--json` prints them."""
        return asdict(self)


def stats(at: Installation) -> CacheStats:
    """Return the figures of the cache; expired answers are not counted."""
    counts = {name: int(value) for name, value in fields_of(_counts(at)).items()}
    by_model: dict[str, list[int]] = defaultdict(list)
    by_tenant: dict[str, list[int]] = defaultdict(list)
    for _, entry in _entries(at, from_ms=_now_ms(at)):
        by_model[entry.model].append(entry.size)
        by_tenant[entry.tenant].append(entry.size)
    hits, shared, misses = (counts.get(name, 0) for name in ("hits", "shared", "misses"))
    lookups = hits + shared + misses
    oldest: Any = at.redis.zrange(at.keys.cache_uses(), 0, 0, withscores=True)
    return CacheStats(
        entries=sum(map(len, by_model.values())),
        bytes=sum(map(sum, by_model.values())),
        bound_bytes=at.settings.cache_mb * 1024 * 1024,
        hits=hits,
        shared=shared,
        misses=misses,
        hit_rate=(hits + shared) / lookups if lookups else None,
        saved_usd=usd_text(counts.get("saved", 0)),
        evicted=counts.get("evicted", 0),
        oldest_use_at=rfc3339(int(oldest[0][1])) if oldest else None,
        models=_top(by_model),
        tenants=_top(by_tenant),
    )


def clear(at: Installation, tenant: str | None = None, model: str | None = None) -> int:
    """Delete all answers, or those of this tenant and this model; return how many.

    Raise WrongUse for a tenant or a model that cannot exist.
    """
    if tenant is not None and (not 0 < len(tenant) <= LONGEST_NAME or "\0" in tenant):
        remedy = f"a name has 1 to {LONGEST_NAME} characters and no NUL"
        raise WrongUse("--tenant", tenant, remedy)
    if tenant is None and model is None:
        return _clear_all(at)
    wanted = None if model is None else _require_model(at, model)
    names = [
        name
        for name, entry in _entries(at)
        if tenant in (None, entry.tenant) and wanted in (None, entry.model)
    ]
    return _drop(at, names)


def _clear_all(at: Installation) -> int:
    """Delete all answers, also those of older releases, which the index does not list."""
    kinds = {
        at.keys.cached(): b"hash", at.keys.cache_counts(): b"hash",
        at.keys.cache_uses(): b"zset", at.keys.cache_ends(): b"zset",
    }  # fmt: skip
    broken = [key for key, kind in kinds.items() if _type(at, key) not in (kind, b"none")]
    if broken:
        at.redis.delete(*broken)
    names = {name for name, _ in _entries(at)}
    start = at.keys.cache("")
    for key in at.redis.scan_iter(match=start + "?" * 64, count=PAGE):
        names.add(key.decode().removeprefix(start))
    return _drop(at, sorted(names))


def _drop(at: Installation, names: list[str]) -> int:
    return sum(
        run(at.redis, cache_index.drop(at.keys, names[first : first + PAGE]))
        for first in range(0, len(names), PAGE)
    )


def _entries(at: Installation, from_ms: int = 0) -> Iterator[tuple[str, CacheIndexEntry]]:
    """Yield each answer that expires after `from_ms`, by its end.

    Pages continue by the end of the last answer, so that deletions in between skip none.
    """
    seen_at, seen = float(from_ms), 0
    while True:
        found: Any = at.redis.zrangebyscore(
            at.keys.cache_ends(), seen_at, "+inf", start=seen, num=PAGE, withscores=True
        )
        if not found:
            return
        names = [name for name, _ in found]
        texts: Any = at.redis.hmget(at.keys.cached(), names)
        for name, text_ in zip(names, texts, strict=True):
            entry = None if text_ is None else entry_from(text_)
            if entry is not None:
                yield name.decode(), entry
        last = found[-1][1]
        same = sum(1 for _, end in found if end == last)
        seen = seen + same if last == seen_at else same
        seen_at = last


def _require_model(at: Installation, model: str) -> str:
    try:
        return at.catalog.model(model, "--model").name
    except InvalidRequest as error:
        if any(entry.model == model for _, entry in _entries(at)):
            return model  # an earlier catalog had it
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
