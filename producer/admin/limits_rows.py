"""The rows that `headgate limits` shows; times are in UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BucketRow:
    """One measure of one bucket.

    `fill`: the share of `capacity` that is free, below 0 if overdrawn. `limit`: per minute, for
    `rpd` per day. `whence`: who set the limit: catalog, set (an operator) or provider. `ramp`: what
    a ramp lets through per minute, where one holds it.
    """

    scope: str
    key: str
    measure: str
    limit: float
    whence: str
    fill: float | None
    left: float | None
    capacity: float | None
    running: int | None
    ramp: float | None = None


@dataclass(frozen=True, slots=True)
class GateRow:
    """The gate of one key of a pool, if it is shut or slows calls down.

    `asked_until`: the moment that its provider named, where one call tests the gate before that.
    """

    pool: str
    key: str
    state: str
    why: str
    until: str | None
    pace: float
    ceiling: int | None
    asked_until: str | None = None


@dataclass(frozen=True, slots=True)
class TenantRow:
    """The waiting jobs of a tenant in a pool; `drain_s`: seconds that its own limits take."""

    tenant: str
    waiting: int
    drain_s: float | None


@dataclass(frozen=True, slots=True)
class PoolRow:
    """The waiting and the running jobs of a pool.

    `drain_s`: seconds until all have started; None if nothing limits the pool or if it is unknown.
    `held_tokens`: tokens that running jobs hold.
    """

    pool: str
    paused: bool
    waiting: int
    by_priority: Mapping[str, int]
    by_tenant: Sequence[TenantRow]
    other_tenants: int
    waiting_of_others: int
    oldest_age_s: float | None
    drain_s: float | None
    running: int
    held_tokens: int


@dataclass(frozen=True, slots=True)
class LockoutRow:
    """A user who is locked out until then after too many refusals; `count`: recent lockouts."""

    tenant: str
    user: str
    until: str | None
    count: int


@dataclass(frozen=True, slots=True)
class LimitsReport:
    """All rows.

    `unsorted`: messages that no worker has fetched yet, by queue. `callers_left_out`: how many
    tenants and users with limits of their own are not among the buckets. `lockouts`: None if there
    are too many keys to find them.
    """

    buckets: Sequence[BucketRow]
    gates: Sequence[GateRow]
    pools: Sequence[PoolRow]
    paused: Sequence[str]
    unsorted: Mapping[str, int]
    lockouts: Sequence[LockoutRow] | None = ()
    callers_left_out: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)
