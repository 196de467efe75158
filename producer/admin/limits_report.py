"""Reports the limits now: how full buckets are, which gates are shut, who waits and how long.

It reads only. Figures of different pools are some milliseconds apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from headgate.producer.admin.limits import pools_of, shown, suggestion
from headgate.producer.admin.limits_rows import (
    BucketRow,
    GateRow,
    LimitsReport,
    LockoutRow,
    PoolRow,
    TenantRow,
)
from headgate.producer.admin.own_drains import jobs_of, read_callers
from headgate.producer.installation import Installation
from headgate.producer.waits import drain
from headgate.producer.waits import view as waiting_view
from headgate.producer.waits.levels import (
    BucketLevel,
    LimitInForce,
    Load,
    levels,
    limits_in_force,
)
from headgate.producer.waits.pools import WaitingPool
from headgate.producer.waits.view import Seen
from headgate.shared.admission.grant import Held, decode
from headgate.shared.admission.overrides import texts_of
from headgate.shared.admission.scopes import EVERY_TENANT, quoted, tier_scope, unquoted
from headgate.shared.admission.ticket import FLEX
from headgate.shared.broker import script
from headgate.shared.broker.queues import all_queues
from headgate.shared.broker.script import fields_of, text_of
from headgate.shared.errors import WrongUse
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.request import PRIORITIES

BIGGEST = 10
"""How many tenants of a pool are listed by name."""

MOST_SCANS = 200
"""How many pages of 1,000 keys are scanned for lockouts."""

MOST_CALLERS = 50
"""How many tenants and users have their buckets listed, unless one tenant is asked for."""


@dataclass(slots=True)
class _State:
    """The state of the whole installation, read in one round trip."""

    limits: Mapping[str, str]
    overrides: Mapping[str, str]
    queues: Mapping[str, str]
    paused: Collection[str]
    held: Mapping[str, Counter[str]] = field(default_factory=dict)
    unsorted: Mapping[str, int] = field(default_factory=dict)


def report(at: Installation, *, pool: str | None = None, tenant: str | None = None) -> LimitsReport:
    """Report on all pools, or on one; on all tenants, or on one. Raise WrongUse."""
    state = _read_state(at)
    pools = _choose_pools(at, state, pool)
    view = script.run(at.redis, waiting_view.view(at.keys, pools=pools))
    only = None if tenant is None else quoted(tenant)
    jobs = {name: jobs_of(at, view.pools[name], only) for name in pools}
    waiting = {name: _count_by_tenant(jobs[name]) for name in pools}
    binding = read_callers(at, view, [one for found in jobs.values() for one in found])
    callers = _caller_scopes(state, waiting, only)
    if only is not None:
        callers += _tier_scopes(at, only)
    own = _own_levels(at, state, callers[:MOST_CALLERS], view.now_ms)
    found: list[PoolRow] = []
    buckets: list[BucketRow] = []
    gates: list[GateRow] = []
    for name in pools:
        one = view.pools[name]
        if name == one.plain_name:
            buckets += _pool_buckets(one)
        gates += _gate_rows(one)
        drains = drain.drains(jobs[name], binding)
        row = _pool_row(one, waiting[name], drains, view, state, of_one=only is not None)
        if row.waiting or row.running or row.paused:
            found.append(row)
    shared_rows = _shared_rows(view) if only is None else []
    caller_rows = [_bucket_row(scope, "", level) for scope in own for level in own[scope]]
    return LimitsReport(
        [*shared_rows, *([] if only else buckets), *caller_rows],
        gates,
        found,
        [shown(member) for member in sorted(state.paused)],
        state.unsorted,
        _find_lockouts(at, only, view.now_ms),
        max(0, len(callers) - MOST_CALLERS),
    )


def _read_state(at: Installation) -> _State:
    queues = all_queues(at.catalog.classes)
    with at.redis.pipeline(transaction=False) as pipe:
        for key in (
            at.keys.limits(),
            at.keys.overrides(),
            at.keys.waiting_queues(),
            at.keys.holds(),
        ):
            pipe.hgetall(key)
        pipe.smembers(at.keys.paused())
        for queue in queues:
            pipe.llen(at.keys.queue(queue))
        limits, overrides, waiting, holds, paused, *lengths = pipe.execute()
    held: dict[str, Counter[str]] = {}
    for text in fields_of(holds).values():
        grant = decode(text)
        if isinstance(grant, Held):
            of_pool = held.setdefault(grant.pool, Counter())
            of_pool.update(running=1, tokens=grant.input_tokens + grant.output_tokens)
    return _State(
        limits=fields_of(limits),
        overrides=fields_of(overrides),
        queues=fields_of(waiting),
        paused={member.decode() for member in paused},
        held=held,
        unsorted={queue: n for queue, n in zip(queues, lengths, strict=True) if n},
    )


def _choose_pools(at: Installation, state: _State, wanted: str | None) -> list[str]:
    waited_for = {name.split(" ", 1)[1] for name in state.queues}
    limited = {s.removeprefix("pool/") for s in state.limits if s.startswith("pool/")}
    known = {*pools_of(at.catalog), *waited_for, *limited, *state.held}
    if wanted is None:
        return sorted(known)
    if wanted not in known:
        remedy = f"the catalog has no such pool{suggestion(wanted, known)}"
        raise WrongUse("--pool", wanted, remedy)
    return sorted({wanted, *(name for name in waited_for if name == wanted + FLEX)})


def _count_by_tenant(jobs: Sequence[drain.CallerJobs]) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in jobs:
        found[one.tenant] += one.waiting
    return found


def _caller_scopes(
    state: _State, waiting: Mapping[str, Counter[str]], only: str | None
) -> list[str]:
    """Return the scopes of tenants and users that have limits; those with waiting jobs first."""
    biggest: Counter[str] = Counter()
    for counts in waiting.values():
        biggest.update(dict(counts.most_common(BIGGEST)))
    found = [f"tenant/{tenant}" for tenant, _ in biggest.most_common()]
    if only is not None:
        found = [f"tenant/{only}"]
    own = [scope for scope in (*state.overrides, *state.limits) if scope != EVERY_TENANT]
    named = [scope for scope in own if scope.startswith(("tenant/", "user/"))]
    found += [scope for scope in named if only is None or scope.split("/")[1] == only]
    every = EVERY_TENANT in state.limits or EVERY_TENANT in state.overrides
    limited = [s for s in found if s in own or (every and s.startswith("tenant/"))]
    return list(dict.fromkeys(limited))


def _tier_scopes(at: Installation, tenant: str) -> list[str]:
    """Return the tier buckets of a tenant's users: `tier/NAME/TENANT/USER[/MODEL]`."""
    beginning = at.keys.bucket("").removesuffix("#")
    found = at.redis.scan_iter(at.keys.bucket(f"tier/*/{tenant}/*"), count=1000)
    return sorted(key.decode().removeprefix(beginning).removesuffix("#") for key in found)


def _find_lockouts(at: Installation, tenant: str | None, now_ms: int) -> list[LockoutRow] | None:
    """Return the users who are locked out now; None if there are too many keys to scan."""
    beginning = at.keys.lockout("").removesuffix("/")
    cursor, names = 0, list[str]()
    for scanned in count(1):
        page: Any = at.redis.scan(cursor, f"{beginning}{tenant or '*'}/*", count=1000)
        cursor, found = page
        names += map(text_of, found)
        if not cursor:
            break
        if tenant is None and scanned >= MOST_SCANS:
            return None
    with at.redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(name, "until", "count")
        values = pipe.execute()
    rows = []
    for name, (until, times) in zip(names, values, strict=True):
        if (until_ms := int(float(until or 0))) > now_ms:
            owner, _, user = name.removeprefix(beginning).partition("/")
            rows.append(
                LockoutRow(
                    unquoted(owner), unquoted(user), rfc3339(until_ms), int(float(times or 0))
                )
            )
    return sorted(rows, key=lambda row: (row.tenant, row.user))


def _own_levels(
    at: Installation, state: _State, scopes: Sequence[str], now_ms: int
) -> dict[str, list[BucketLevel]]:
    with at.redis.pipeline(transaction=False) as pipe:
        for scope in scopes:
            pipe.hgetall(at.keys.bucket(scope))
        buckets = pipe.execute()
    return {
        scope: levels(_limits_of(state, scope), fields_of(bucket), now_ms, of_provider=False)
        for scope, bucket in zip(scopes, buckets, strict=True)
    }


def _limits_of(state: _State, scope: str) -> dict[str, LimitInForce]:
    if scope.startswith("tier/"):
        _, tier, _tenant, _user, *model = scope.split("/", 4)
        scope = tier_scope(tier, *model)
    return limits_in_force(*texts_of(state.limits, state.overrides, scope))


def _pool_row(
    pool: WaitingPool, waiting: Counter[str], drains: Mapping[str, float], view: Seen,
    state: _State, *, of_one: bool,
) -> PoolRow:  # fmt: skip
    total = sum(waiting.values()) if of_one else sum(one.waiting for one in pool.queues)
    load = sum((one.load for one in pool.queues), Load())
    tenants = [
        TenantRow(unquoted(name), n, None if _is_paused(state, name) else drains.get(name) or None)
        for name, n in waiting.most_common(BIGGEST)
    ]
    oldest = [one.oldest_ms for one in pool.queues if one.oldest_ms is not None]
    paused = f"pool/{pool.plain_name}" in state.paused
    held = state.held.get(pool.name, Counter())
    return PoolRow(
        pool=pool.name,
        paused=paused,
        waiting=total,
        by_priority={} if of_one else dict(_count_by_priority(pool)),
        by_tenant=tenants,
        other_tenants=max(0, len(waiting) - BIGGEST),
        waiting_of_others=max(0, total - sum(one.waiting for one in tenants)),
        oldest_age_s=max(0, view.now_ms - min(oldest)) / 1000 if oldest else None,
        drain_s=_drain_s(pool, load, waiting, drains, view.now_ms, state) if total else None,
        running=held["running"],
        held_tokens=held["tokens"],
    )


def _drain_s(
    pool: WaitingPool, load: Load, waiting: Counter[str], drains: Mapping[str, float],
    now_ms: int, state: _State,
) -> float | None:  # fmt: skip
    """Return the seconds until all jobs of the pool have started; None if no one can know."""
    stopped = [f"pool/{pool.plain_name}", *(f"queue/{one.queue}" for one in pool.queues)]
    if any(member in state.paused for member in stopped):
        return None
    if any(_is_paused(state, tenant) for tenant in waiting):
        return None
    if all(key.gate.waits_for_word for key in pool.keys):
        return None
    own = [drains[tenant] for tenant in waiting if drains.get(tenant)]
    by_pool = pool.drain_s(load, now_ms)
    return max([*own, *([] if by_pool is None else [by_pool])], default=None)


def _is_paused(state: _State, tenant: str) -> bool:
    return f"tenant/{tenant}" in state.paused


def _count_by_priority(pool: WaitingPool) -> Counter[str]:
    """Return the waiting jobs by priority; those of a queue without one under its name."""
    found: Counter[str] = Counter()
    for one in pool.queues:
        parts = one.queue.split(".")
        found[parts[1] if parts[1:2] and parts[1] in PRIORITIES else one.queue] += one.waiting
    return found


def _pool_buckets(pool: WaitingPool) -> Iterator[BucketRow]:
    for key in pool.keys:
        for level in key.levels:
            yield _bucket_row(f"pool/{pool.plain_name}", key.name, level)


def _shared_rows(view: Seen) -> list[BucketRow]:
    """Return the buckets of the providers and of the scope `global`, once each."""
    rows: dict[tuple[str, str, str], BucketRow] = {}
    for pool in view.pools.values():
        provider = f"provider/{pool.name.split('/')[0]}"
        of_keys = [(provider, key.name, key.provider_levels) for key in pool.keys]
        for scope, key_name, found in (("global", "", pool.global_levels), *of_keys):
            for level in found:
                row = _bucket_row(scope, key_name, level)
                rows[row.scope, row.key, row.measure] = row
    return list(rows.values())


def _bucket_row(scope: str, key: str, level: BucketLevel) -> BucketRow:
    limit, free = level.limit, None if level.level is None else round(level.level, 3)
    if level.running is not None:
        free = max(0.0, limit.amount - level.running)
    fill = None if level.fill is None else round(level.fill, 4)
    capacity = None if level.capacity is None else round(level.capacity, 3)
    return BucketRow(
        shown(scope), key, level.measure, limit.amount, limit.whence, fill, free, capacity,
        level.running, None if level.ramp_a_minute is None else round(level.ramp_a_minute),
    )  # fmt: skip


def _gate_rows(pool: WaitingPool) -> Iterator[GateRow]:
    for key in pool.keys:
        gate = key.gate
        if gate.is_open and gate.pace == 1 and gate.ceiling is None:
            continue
        until = None if gate.waits_for_word else rfc3339(gate.until_ms)
        state = "open" if gate.is_open else "shut"
        pace = round(gate.pace, 4)
        asked = rfc3339(gate.asked_ms)
        yield GateRow(pool.name, key.name, state, gate.why, until, pace, gate.ceiling, asked)
