"""The rows of what the governor does now, as `headgate limits` shows them; times in UTC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class BucketRow:
    """One measure of one bucket. `fill`: the share of `capacity` that is there; debts are below 0.

    `limit` is a minute's, of `rpd` a day's; `whence`: catalog, set or provider.
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


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate that holds something back, of one key of a pool."""

    pool: str
    key: str
    state: str
    why: str
    until: str | None
    pace: float
    ceiling: int | None


@dataclass(frozen=True, slots=True)
class TenantRow:
    """How many jobs of a tenant wait for a pool; `drain_s`: how long its own limits take."""

    tenant: str
    waiting: int
    drain_s: float | None


@dataclass(frozen=True, slots=True)
class PoolRow:
    """What waits for a pool and what runs there. `drain_s`: None where nothing limits it, or where
    nobody can tell. `held_tokens`: what running jobs hold of it."""

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
    """A user who is refused until then, after too many refusals; `count`: lockouts of late."""

    tenant: str
    user: str
    until: str | None
    count: int


@dataclass(frozen=True, slots=True)
class LimitsReport:
    """All of it. `unsorted`: messages by queue that no worker has looked at yet.

    `callers_left_out`: tenants and users with limits of their own that are not among the buckets.
    `lockouts`: None where there are too many keys to look for them.
    """

    buckets: Sequence[BucketRow]
    gates: Sequence[GateRow]
    pools: Sequence[PoolRow]
    paused: Sequence[str]
    unsorted: Mapping[str, int]
    lockouts: Sequence[LockoutRow] | None = ()
    callers_left_out: int = 0

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)
