"""How full buckets are and how long jobs will wait for them, for people to read.

The fetch script decides what is granted, in `shared/broker/lua/lib/{bucket,depth,gate}.lua`. This
module shows the same figures: the constants come from `shared/broker/figures.py`, and a test
compares the formulas with the script. Nothing here does I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from headgate.producer.waits.depths import Depth
from headgate.shared.admission.overrides import overlay
from headgate.shared.broker import figures
from headgate.shared.broker.figures import DAY_MS

MEASURES = (*figures.MEASURES, "concurrent")

Whence = Literal["catalog", "set", "provider"]


@dataclass(frozen=True, slots=True)
class LimitInForce:
    """A limit in force, and who set it: the catalog, an operator, or the provider's headers."""

    amount: float
    whence: Whence


def limits_in_force(catalog: str, operator: str = "") -> dict[str, LimitInForce]:
    """Read the limits of one scope, such as `rpm=60 tpm=1000`.

    The operator's limits override the catalog's, measure by measure. `none` removes a limit.
    """
    return {
        name: LimitInForce(float(figure.text), "set" if figure.is_set else "catalog")
        for name, figure in overlay(catalog, operator).items()
    }


@dataclass(frozen=True, slots=True)
class BucketLevel:
    """One measure of one bucket now. `rate_per_s` and `capacity` are what the governor uses.

    `level`: what can be taken. It is below 0 when more was used than was held. It is None when
    nothing was taken lately, and for `concurrent`, which has calls `running`. `ramp_a_minute`: what
    a ramp lets through, where one holds it. `window_ends_ms`: when the next of the provider's fixed
    windows of `window_ms` begins, where it counts in such.
    """

    measure: str
    limit: LimitInForce
    level: float | None = None
    capacity: float | None = None
    rate_per_s: float | None = None
    running: int | None = None
    ramp_a_minute: float | None = None
    window_ends_ms: float | None = None
    window_ms: float = 0.0

    @property
    def fill(self) -> float | None:
        """The share of the capacity that is there, at most 1. For calls at once, what is free."""
        if self.running is not None:
            return max(0.0, 1 - self.running / self.limit.amount)
        if self.level is None or not self.capacity:
            return None
        return self.level / self.capacity

    def wait_s(self, amount: float, now_ms: float) -> float:
        """Return the seconds until this much is there; 0 if it is there now."""
        if self.measure == "concurrent" or amount <= 0:
            return 0.0
        if self.measure == "rpd":
            missing = amount - (self.limit.amount if self.level is None else self.level)
            if missing <= 0:
                return 0.0
            days = math.ceil(missing / self.limit.amount) - 1
            return ((DAY_MS - now_ms % DAY_MS) + days * DAY_MS) / 1000
        level = self.capacity or 0.0 if self.level is None else self.level
        if self.window_ends_ms is not None and level < amount:
            windows = math.ceil((amount - level) / (self.capacity or 1.0)) - 1
            return (self.window_ends_ms - now_ms + windows * self.window_ms) / 1000
        return max(0.0, (amount - level) / self.rate_per_s) if self.rate_per_s else 0.0


def levels(
    limits: Mapping[str, LimitInForce],
    bucket: Mapping[str, str],
    now_ms: float,
    *,
    of_provider: bool,
    pace: float = 1.0,
) -> list[BucketLevel]:
    """Return the limited measures of a bucket, as they are now.

    `pace`: share of a provider's token rate that is used, up to 1.
    """
    burst_s = limits["burst_s"].amount if "burst_s" in limits else 0.0
    found = []
    for measure in MEASURES:
        limit = limits.get(measure)
        seen = number(bucket.get(f"{measure}.seen")) if of_provider else None
        # No provider gives less than one a minute; such a figure is none.
        if seen and seen >= 1 and (limit is None or seen < limit.amount):
            limit = LimitInForce(seen, "provider")
        if limit is None:
            continue
        if measure == "concurrent":
            running = max(0, int(number(bucket.get("running")) or 0))
            found.append(BucketLevel(measure, limit, running=running))
        elif measure == "rpd":
            found.append(_of_day(limit, bucket, now_ms))
        elif of_provider:
            slower = 1.0 if measure == "rpm" else pace
            found.append(_of_provider(measure, limits, limit, bucket, now_ms, slower))
        else:
            capacity = max(1.0, limit.amount / 60 * (burst_s or figures.OWN_BURST_S))
            rate_per_s = limit.amount / 60
            level = _filled(measure, bucket, now_ms, capacity, rate_per_s)
            found.append(BucketLevel(measure, limit, level, capacity, rate_per_s))
    return found


def _of_provider(
    measure: str, limits: Mapping[str, LimitInForce], limit: LimitInForce,
    bucket: Mapping[str, str], now_ms: float, slower: float,
) -> BucketLevel:  # fmt: skip
    """Return a measure of a provider's bucket; `slower`: the pace of its gate."""
    words = {name: number(bucket.get(f"{measure}.{name}")) for name in _TOLD}
    fields = {name: one for name, one in words.items() if one is not None}
    depth = Depth(limit.amount, fields, now_ms)
    ramp = _ramped(measure, limits, limit.amount, bucket, now_ms)
    allowed = ramp * slower
    burst_s = _burst_s(measure, limits, bucket)
    told = depth.full is not None and not burst_s
    fixed = allowed == limit.amount and told and depth.is_fixed
    rate_per_s = allowed * depth.share(fixed=fixed) / 60
    capacity = max(1.0, depth.capacity(allowed, burst_s, fixed=fixed))
    level = number(bucket.get(f"{measure}.level"))
    at_ms = number(bucket.get(f"{measure}.at")) or now_ms
    if fixed and level is not None:
        passed = max(0, depth.window_of(now_ms) - depth.window_of(at_ms))
        level = min(capacity, level + passed * capacity)
    else:
        level = _filled(measure, bucket, now_ms, capacity, rate_per_s)
    return BucketLevel(
        measure, limit, level, capacity, rate_per_s,
        ramp_a_minute=ramp if ramp < limit.amount else None,
        window_ends_ms=depth.window_ends_ms if fixed else None,
        window_ms=depth.window_ms if fixed else 0.0,
    )  # fmt: skip


def _burst_s(measure: str, limits: Mapping[str, LimitInForce], bucket: Mapping[str, str]) -> float:
    """Return the seconds of the rate that may go at once; 0: as the provider's bucket has it."""
    if "burst_s" in limits:
        return limits["burst_s"].amount
    own, seen = limits.get(measure), number(bucket.get(f"{measure}.seen"))
    return 1.0 if own and seen and own.amount < figures.SHARED * seen else 0.0


_TOLD = ("top", "before", "sum", "floor", "told_at", "fixed", "window_at", "share", "share_at")
"""What a bucket has learned of its provider's own."""


def _filled(
    measure: str, bucket: Mapping[str, str], now_ms: float, capacity: float, rate_per_s: float
) -> float | None:
    level = number(bucket.get(f"{measure}.level"))
    if level is None:
        return None
    since_s = max(0.0, now_ms - (number(bucket.get(f"{measure}.at")) or now_ms)) / 1000
    return min(capacity, level + since_s * rate_per_s)


def _of_day(limit: LimitInForce, bucket: Mapping[str, str], now_ms: float) -> BucketLevel:
    is_today = number(bucket.get("rpd.day")) == now_ms // DAY_MS
    used = (number(bucket.get("rpd.used")) or 0.0) if is_today else 0.0
    return BucketLevel("rpd", limit, limit.amount - used, limit.amount)


def _ramped(
    measure: str,
    limits: Mapping[str, LimitInForce],
    amount: float,
    bucket: Mapping[str, str],
    now: float,
) -> float:
    """Return what a ramp lets through of a large limit now, where the operator asks for one."""
    start = limits["ramp_from"].amount if "ramp_from" in limits else math.inf
    if measure not in figures.RAMPED or amount <= start:
        return amount
    used, at = number(bucket.get(f"{measure}.use")) or 0.0, number(bucket.get(f"{measure}.at"))
    used *= math.exp(-max(0.0, now - (at or now)) / figures.RAMP_MS)
    return min(amount, max(start, figures.RAMP_GROWTH * used))


@dataclass(frozen=True, slots=True)
class GateState:
    """Whether a pool may be asked with one key.

    `until_ms`: the gate is shut before that; None when it is open. `pace`: share of the token rate
    that is used, up to 1. `ceiling`: calls at once, or None. `asked_ms`: the moment that its
    provider named, where that is later than we wait: one call tests the gate before, or None.
    `since_ms`: when it was shut, if that is known.
    """

    until_ms: int | None = None
    why: str = ""
    pace: float = 1.0
    ceiling: int | None = None
    asked_ms: int | None = None
    since_ms: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests go through."""
        return self.until_ms is None

    @property
    def waits_for_word(self) -> bool:
        """Whether it stays shut until an operator opens it or a probe succeeds."""
        return self.until_ms is not None and self.until_ms >= figures.FAR_MS


def gate(fields: Mapping[str, str], now_ms: float) -> GateState:
    """Return the gate of these fields now."""
    until, asked = number(fields.get("until")), number(fields.get("asked"))
    if asked is not None and asked > now_ms:  # one call tests it, or the next one will
        until = max(until or 0.0, number(fields.get("probe_at")) or 0.0, now_ms + 1)
    else:
        asked = None
    pace, ceiling = number(fields.get("pace")), number(fields.get("ceiling"))
    if pace is not None:
        since_ms = max(0.0, now_ms - (number(fields.get("pace_at")) or now_ms))
        # A pace that was lowered a day ago is whole.
        pace *= figures.PACE_GROWTH ** min(96.0, since_ms / figures.PACE_MS)
    if ceiling is not None:
        missing = max(1.0, (number(fields.get("ceiling_from")) or 0.0) - ceiling)
        since_s = max(0.0, now_ms - (number(fields.get("ceiling_at")) or now_ms)) / 1000
        grown = since_s * max(1.0, missing / figures.CEILING_S)
        ceiling = ceiling + math.floor(grown) if grown < 2 * missing else None
    return GateState(
        int(until) if until is not None and until > now_ms else None,
        fields.get("why", "") if until is not None and until > now_ms else "",
        1.0 if pace is None else min(1.0, pace),
        None if ceiling is None else int(ceiling),
        None if asked is None else int(asked),
        None if (since := number(fields.get("shut_at"))) is None else int(since),
    )


def number(text: str | None) -> float | None:
    """Return the number, or None where the text is no finite number."""
    try:
        found = float(text) if text else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


@dataclass(frozen=True, slots=True)
class Load:
    """What jobs will take together: requests and tokens."""

    jobs: float = 0
    input_tokens: float = 0
    output_tokens: float = 0

    def of(self, measure: str) -> float:
        """Return what they take of this measure."""
        tokens = {"input_tpm": self.input_tokens, "output_tpm": self.output_tokens}
        if measure == "tpm":
            return self.input_tokens + self.output_tokens
        return tokens.get(measure, self.jobs)

    def times(self, n: float) -> Load:
        """Return that many times as much."""
        return Load(self.jobs * n, self.input_tokens * n, self.output_tokens * n)

    def __add__(self, other: Load) -> Load:
        return Load(
            self.jobs + other.jobs,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )


def drain_s(load: Load, keys: Sequence[Iterable[BucketLevel]], now_ms: float) -> float | None:
    """Return the seconds until buckets have let this much through; None where nothing limits it.

    `keys`: the levels of each of the buckets that share the load. Calls at once do not count,
    because nobody knows how long one lasts.
    """
    longest = None
    share = load.times(1 / max(1, len(keys)))
    for of_key in keys:
        for level in of_key:
            if level.measure == "concurrent":
                continue
            wait_s = level.wait_s(share.of(level.measure), now_ms)
            longest = max(longest or 0.0, wait_s)
    return longest
