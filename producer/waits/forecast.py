"""How long a waiting job has to wait, and for which limit: of all that bind it, the longest.

A forecast assumes that jobs take what their tickets say, and that nothing else uses the limits. It
is pure: it decides from what `view.py` has read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from headgate.producer.waits.callers import CallerBucket
from headgate.producer.waits.levels import BucketLevel, GateState, Load
from headgate.producer.waits.pools import WaitingPool, WaitingQueue, load_of
from headgate.producer.waits.view import InWaitingQueue, Seen
from headgate.shared.admission.scopes import tenant_scope, user_scope

SOON_S = 1.0
"""What is counted for a limit of calls at one time: no one knows when a call ends."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One thing that a job has to wait for: a limit (`level`) or a gate (`gate`) of a scope.

    Neither: callers of the scope were passed over, and are tried again. `wait_s`: seconds until the
    job has passed it. `is_known`: False where that is a guess.
    """

    scope: str
    wait_s: float
    level: BucketLevel | None = None
    gate: GateState | None = None
    is_known: bool = True


def longest(place: InWaitingQueue, seen: Seen) -> Bound | None:
    """Return what the job waits for longest; None if no limit and no gate keeps it."""
    pool, queue = seen.pools.get(place.ticket.pool), seen.waiting_queue(place)
    if pool is None or queue is None:
        return None
    bounds = [*_of_caller(place, queue, seen), *_of_pool(place, queue, pool, seen.now_ms)]
    binding = (one for one in bounds if one.wait_s > 0)
    # Of two that end together, the one with a reason.
    return max(binding, key=lambda one: (one.wait_s, one.level is not None), default=None)


def turns_ahead(place: InWaitingQueue, seen: Seen) -> int:
    """Return about how many jobs start before this one.

    Counted are the jobs with earlier turns, from the tenants and users that take turns, and all
    jobs of queues of its pool that have a more urgent job.
    """
    pool, queue = seen.pools.get(place.ticket.pool), seen.waiting_queue(place)
    if pool is None or queue is None:
        return place.ahead
    others = sum(other.waiting for other in _more_urgent(pool, queue))
    return min(_turns(place, queue), queue.waiting - 1) + others


def turn_s(place: InWaitingQueue, ahead: int, seen: Seen) -> float | None:
    """Return the seconds until it is the turn of a job that nothing limits; None if unknown.

    Those ahead start as fast as calls of the pool end now: calls that run, by their mean latency in
    the last minute.
    """
    provider, model = place.ticket.pool.partition("/")[0], place.ticket.model
    latencies = [one.latency_ms for one in seen.breakers.get(f"{provider}/{model}", ())]
    known = [one for one in latencies if one]
    pool = seen.pools.get(place.ticket.pool)
    running = sum(key.running for key in pool.keys) if pool is not None else 0
    if not known or not running:
        return None
    return (ahead + 1) * sum(known) / len(known) / running / 1000


def _turns(place: InWaitingQueue, queue: WaitingQueue) -> int:
    return (place.ahead + 1) * place.users * max(1, queue.tenants) - 1


def _more_urgent(pool: WaitingPool, queue: WaitingQueue) -> Iterator[WaitingQueue]:
    rank = queue.first_rank_ms or math.inf
    return (other for other in pool.queues if (other.first_rank_ms or math.inf) < rank)


def _of_caller(place: InWaitingQueue, queue: WaitingQueue, seen: Seen) -> Iterator[Bound]:
    """Yield the bounds by the limits of the job's tenant, its user and its tier."""
    own = load_of(place.ticket)
    before_user = queue.mean.times(place.ahead)
    before_tenant = queue.mean.times((place.ahead + 1) * place.users - 1)
    for bucket in seen.callers.limits_of(place.ticket):
        load = own + (before_tenant if bucket.of_tenant else before_user)
        at_ms = place.tenant_at_ms if bucket.of_tenant else place.user_at_ms
        retry_s = ((at_ms or 0) - seen.now_ms) / 1000
        for bound in of_bucket(bucket, load, seen.now_ms):
            # Whoever was passed over is not tried again before this moment.
            is_later = bound.wait_s > 0 and bound.wait_s < retry_s < math.inf
            yield replace(bound, wait_s=retry_s) if is_later else bound
    yield from _passed_over(place, seen.now_ms)


def _passed_over(place: InWaitingQueue, now_ms: int) -> Iterator[Bound]:
    """Yield when tenant and user are tried again, whatever has kept them."""
    tenant, user = place.ticket.tenant, place.ticket.user
    for scope, at_ms in (
        (tenant_scope(tenant), place.tenant_at_ms),
        (user_scope(tenant, user) if user else tenant_scope(tenant), place.user_at_ms),
    ):
        if at_ms is not None and now_ms < at_ms < math.inf:
            yield Bound(scope, (at_ms - now_ms) / 1000)


def of_bucket(bucket: CallerBucket, load: Load, now_ms: float) -> Iterator[Bound]:
    """Yield when this load has passed each limit of the bucket of a caller."""
    for level in bucket.levels:
        yield _bound(bucket.scope, level, load, now_ms)


def _bound(scope: str, level: BucketLevel, load: Load, now_ms: float) -> Bound:
    if level.running is not None:
        is_full = level.running >= level.limit.amount
        return Bound(scope, SOON_S if is_full else 0.0, level, is_known=False)
    return Bound(scope, level.wait_s(load.of(level.measure), now_ms), level)


def _of_pool(
    place: InWaitingQueue, queue: WaitingQueue, pool: WaitingPool, now_ms: int
) -> list[Bound]:
    """Return the bounds by the limits of the pool, of its provider and of the installation."""
    load = load_of(place.ticket)
    load += queue.mean.times(min(_turns(place, queue), queue.waiting - 1))
    load = sum((other.load for other in _more_urgent(pool, queue)), load)
    found = list(_of_all(pool, load, now_ms))
    if (shut := _shut(pool, now_ms)) is not None:
        # Its own limits begin to count once it is open.
        after_s = max((one.wait_s for one in found), default=0.0)
        found.append(Bound(shut.scope, shut.wait_s + after_s, gate=shut.gate))
    elif (full := _at_ceiling(pool)) is not None:
        found.append(full)
    return found


def _of_all(pool: WaitingPool, load: Load, now_ms: int) -> Iterator[Bound]:
    share = load.times(1 / len(pool.keys))
    provider = pool.plain_name.partition("/")[0]
    for scope, groups in (
        (f"pool/{pool.plain_name}", [key.levels for key in pool.keys]),
        (f"provider/{provider}", [key.provider_levels for key in pool.keys]),
    ):
        for same in zip(*groups, strict=False):  # the same measure of each key
            bounds = [_bound(scope, level, share, now_ms) for level in same]
            is_running = same[0].running is not None
            yield _least(bounds) if is_running else _most(bounds)
    for level in pool.global_levels:
        yield _bound("global", level, load, now_ms)


def _least(bounds: Iterable[Bound]) -> Bound:
    return min(bounds, key=lambda one: one.wait_s)


def _most(bounds: Iterable[Bound]) -> Bound:
    return max(bounds, key=lambda one: one.wait_s)


def _shut(pool: WaitingPool, now_ms: int) -> Bound | None:
    """Return the gate that opens first if those of all keys are shut."""
    shut = [key.gate for key in pool.keys if key.gate.until_ms is not None]
    if len(shut) < len(pool.keys):
        return None
    first = min(shut, key=lambda gate: gate.until_ms or 0)
    wait_s = max(0.001, ((first.until_ms or now_ms) - now_ms) / 1000)
    return Bound(f"pool/{pool.name}", wait_s, gate=first)


def _at_ceiling(pool: WaitingPool) -> Bound | None:
    """Return the gate of a pool that may have no more calls at one time, on any key."""
    full = [
        key.gate
        for key in pool.keys
        if key.gate.ceiling is not None and key.running >= key.gate.ceiling
    ]
    if len(full) < len(pool.keys):
        return None
    return Bound(f"pool/{pool.name}", SOON_S, gate=full[0], is_known=False)
