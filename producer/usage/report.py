"""The report of usage: a row for each key, and a total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from headgate.producer.usage.period import Moment

BY = ("tenant", "user", "model", "template", "batch", "day", "month")
"""The names to group usage by; `user` adds `tenant`, because a user belongs to a tenant."""

TIMES = ("day", "month")


class UsageQuery(TypedDict, total=False):
    """The jobs to count, by the time of their end and their owner, and the number of rows.

    `since`: a moment, a day (UTC), or how long ago: a timedelta, or a text such as "7d". `until`:
    before a moment, or to the end of a day. `limit`: at most so many rows, those with the highest
    cost.
    """

    since: Moment | None
    until: Moment | None
    tenant: str | None
    user: str | None
    model: str | None
    template: str | None
    batch: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What all jobs with this key used. Money is decimal text in USD, latencies are in ms.

    `key`: the value of each name of the grouping; None for jobs without one. Latencies are of
    succeeded jobs; percentiles are at most 1 % above the true ones.
    """

    key: Mapping[str, str | None]
    requests: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    cached: int
    shared: int
    fallbacks: int
    attempts: int
    unknown_attempts: int
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_usd: str
    unpriced: int
    saved_usd: str
    hit_rate: float | None
    error_rate: float | None
    mean_latency_ms: int | None
    p50_latency_ms: int | None
    p95_latency_ms: int | None
    p99_latency_ms: int | None

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values, the key first."""
        return {**self.key, **{name: getattr(self, name) for name in FIGURES}}


FIGURES = tuple(name for name in UsageRow.__dataclass_fields__ if name != "key")
"""The names of all figures of a row."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage by key and in total. `since` and `until`: RFC 3339, in UTC.

    Both are moved to the ends of their days (UTC) if the audit lines of these days are deleted.
    """

    by: tuple[str, ...]
    since: str | None
    until: str | None
    rows: tuple[UsageRow, ...]
    total: UsageRow

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "by": list(self.by),
            "since": self.since,
            "until": self.until,
            "rows": [row.as_json() for row in self.rows],
            "total": self.total.as_json(),
        }
