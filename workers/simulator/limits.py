"""Rate limits as the vendors enforce them: buckets that hold a few seconds of the rate.

A bucket fills continuously, or as a fixed window: it is full again at the end of each window, as
Azure counts. A request passes if every bucket holds its amount or is full; the bucket may then go
into debt. So a request larger than the bucket still passes, and the rate in the long run is exactly
the limit.
"""

import hashlib
import math
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

Kind = Literal["requests", "tokens", "input-tokens", "output-tokens"]


@dataclass(frozen=True, slots=True)
class SimulatedLimit:
    """What a pool may take in a minute; None is no limit."""

    rpm: int | None = None
    tpm: int | None = None
    input_tpm: int | None = None
    output_tpm: int | None = None


@dataclass(frozen=True, slots=True)
class LimitTable:
    """Limits by model name or pattern. Models that match the same pattern share its buckets."""

    default: SimulatedLimit = SimulatedLimit()
    models: dict[str, SimulatedLimit] = field(default_factory=dict)

    def lookup(self, model: str) -> tuple[str, SimulatedLimit]:
        """Return the model's pool name and limit: its own, its first pattern's, or the default."""
        if model in self.models:
            return model, self.models[model]
        for pattern, limit in self.models.items():
            if fnmatchcase(model, pattern):
                return pattern, limit
        return model, self.default


@dataclass(slots=True)
class SimulatedBucket:
    """One bucket. `level` is its level at `at_s` on the caller's clock.

    `fixed`: it does not fill continuously, but is full again at the end of each window. A window
    lasts as long as the rate takes to fill the bucket, and begins at a multiple of that.
    """

    per_minute: int
    capacity: float
    level: float
    at_s: float
    fixed: bool = False

    @property
    def window_s(self) -> float:
        """The seconds in which the rate fills the bucket."""
        return self.capacity * 60 / self.per_minute

    def refill(self, now_s: float) -> None:
        """Bring `level` forward to `now_s`, at most to the capacity."""
        gained = (now_s - self.at_s) * self.per_minute / 60
        if self.fixed:
            windows = math.floor(now_s / self.window_s) - math.floor(self.at_s / self.window_s)
            gained = windows * self.capacity
        if now_s > self.at_s:
            self.level = min(self.capacity, self.level + gained)
            self.at_s = now_s

    def missing(self, needed: float) -> float:
        """Return what is missing for a request that needs this much; at most a full bucket."""
        return max(0.0, min(needed, self.capacity) - self.level)

    def wait_s(self, needed: float) -> float:
        """Return the seconds until a request that needs this much may pass; 0 if it may now."""
        lacking = self.missing(needed)
        # A tenth of a microtoken: rounding errors of hours must not refuse a request.
        if lacking <= 1e-7:
            return 0.0
        if not self.fixed:
            return lacking * 60 / self.per_minute
        return self._window_ends_s() + (math.ceil(lacking / self.capacity) - 1) * self.window_s

    def remaining(self, of_bucket: bool = False) -> int:
        """Return what is left of the minute: the limit less what is used.

        `of_bucket`: what is left in the bucket itself, as providers of short windows report it.
        """
        full = self.capacity if of_bucket else self.per_minute
        return max(0, math.floor(full - (self.capacity - self.level) + 1e-7))

    def full_in_s(self) -> float:
        """Return the seconds until the bucket is full again."""
        return (
            self._window_ends_s()
            if self.fixed
            else self.missing(self.capacity) * 60 / self.per_minute
        )

    def _window_ends_s(self) -> float:
        return (math.floor(self.at_s / self.window_s) + 1) * self.window_s - self.at_s


@dataclass(frozen=True, slots=True)
class SimulatedCharge:
    """An amount for one bucket. Output is known only once it is there: one token must be free."""

    kind: Kind
    amount: int

    @property
    def needed(self) -> int:
        """The level from which the request may pass."""
        return 1 if self.kind == "output-tokens" else self.amount


@dataclass(frozen=True, slots=True)
class SimulatedRefusal:
    """The bucket that refused a request. `wait_s` is None if waiting never helps."""

    kind: Kind
    per_minute: int
    used: int
    amount: int
    wait_s: float | None


@dataclass(slots=True)
class SimulatedPool:
    """The buckets of one model or model family. `label` is its name in the figures."""

    buckets: dict[Kind, SimulatedBucket]
    label: str = ""

    def take(
        self, now_s: float, charges: tuple[SimulatedCharge, ...], count_refused: bool
    ) -> SimulatedRefusal | None:
        """Charge all and return None, or charge nothing and return the refusal that waits longest.

        With `count_refused` a refusal takes a request too, down to a debt of one bucket.
        """
        longest: SimulatedRefusal | None = None
        for charge in charges:
            bucket = self.buckets.get(charge.kind)
            if bucket is None:
                continue
            bucket.refill(now_s)
            wait_s: float | None = bucket.wait_s(charge.needed)
            if charge.needed > bucket.per_minute:
                wait_s = None
            if wait_s == 0.0:
                continue
            if longest is None or _longer(wait_s, longest.wait_s):
                used = bucket.per_minute - bucket.remaining()
                longest = SimulatedRefusal(
                    charge.kind, bucket.per_minute, used, charge.amount, wait_s
                )
        if longest is None:
            for charge in charges:
                if charge.kind in self.buckets:
                    self.buckets[charge.kind].level -= charge.amount
        elif count_refused and (requests := self.buckets.get("requests")) is not None:
            requests.level = max(requests.level - 1, -requests.capacity)
        return longest


class SimulatedPools:
    """All pools of a simulator, made at their first use. The table can change at run time."""

    def __init__(self, table: LimitTable, burst_s: float, *, fixed: bool = False) -> None:
        self.table = table
        self._burst_s = burst_s
        self._fixed = fixed
        self._by_model: dict[tuple[str, bool, str], SimulatedPool] = {}
        self._by_name: dict[tuple[str, bool, str], SimulatedPool] = {}

    def of(self, model: str, split: bool, key: str, now_s: float) -> SimulatedPool:
        """Return the pool of `model` under `key`; `split` counts input and output apart."""
        pool = self._by_model.get((model, split, key))
        if pool is None:
            name, limit = self.table.lookup(model)
            pool = self._by_name.get((name, split, key))
            if pool is None:
                label = f"{'anthropic' if split else 'openai'}/{name}"
                if key:
                    # A key is a secret, also that of a caller who meant another address.
                    label += f"#{hashlib.blake2s(key.encode(), digest_size=4).hexdigest()}"
                pool = SimulatedPool(
                    _buckets(limit, split, self._burst_s, now_s, self._fixed), label
                )
                self._by_name[name, split, key] = pool
            self._by_model[model, split, key] = pool
        return pool

    def change(self, table: LimitTable, now_s: float) -> None:
        """Put `table` in force. Pools keep their debt, and no pool gains a fresh burst."""
        before = self._by_name
        self.table = table
        self._by_model = {}
        self._by_name = {}
        for (name, split, key), old in before.items():
            pool = self.of(name, split, key, now_s)
            for kind, bucket in pool.buckets.items():
                if kind in old.buckets:
                    old.buckets[kind].refill(now_s)
                    bucket.level = min(bucket.level, old.buckets[kind].level)


def limit_from(found: dict[str, Any], base: SimulatedLimit, where: str) -> SimulatedLimit:
    """Return `base` overridden by the fields of `found`; raises ValueError for a wrong field."""
    known = [one.name for one in fields(SimulatedLimit)]
    for name, amount in found.items():
        if name not in known:
            raise ValueError(f"{where}: unknown limit {name!r}; known are {', '.join(known)}")
        if amount is not None and (
            isinstance(amount, bool) or not isinstance(amount, int) or amount < 1
        ):
            raise ValueError(f"{where}: {name} must be a whole number above 0, or null for none")
    return replace(base, **found)


def table_from(found: object, base: LimitTable, where: str) -> LimitTable:
    """Return `base` overridden by `{"rpm": .., "tpm": .., "models": {NAME: {..}}}`."""
    if not isinstance(found, dict):
        raise ValueError(f"{where}: expected a table of limits")
    models = found.get("models", {})
    if not isinstance(models, dict) or not all(isinstance(one, dict) for one in models.values()):
        raise ValueError(f"{where}: models must be a table of tables")
    own = {name: part for name, part in found.items() if name != "models"}
    table = dict(base.models)
    for name, part in models.items():
        table[name] = limit_from(part, SimulatedLimit(), f"{where}: {name}")
    return LimitTable(limit_from(own, base.default, where), table)


def _longer(wait_s: float | None, than_s: float | None) -> bool:
    return than_s is not None and (wait_s is None or wait_s > than_s)


def _buckets(
    limit: SimulatedLimit, split: bool, burst_s: float, now_s: float, fixed: bool
) -> dict[Kind, SimulatedBucket]:
    rates: dict[Kind, int | None] = {"requests": limit.rpm}
    if split:
        rates["input-tokens"] = limit.input_tpm or limit.tpm
        rates["output-tokens"] = limit.output_tpm or limit.tpm
    else:
        rates["tokens"] = limit.tpm
    buckets: dict[Kind, SimulatedBucket] = {}
    for kind, per_minute in rates.items():
        if per_minute is not None:
            capacity = max(1.0, per_minute / 60 * burst_s)
            buckets[kind] = SimulatedBucket(per_minute, capacity, capacity, now_s, fixed)
    return buckets
