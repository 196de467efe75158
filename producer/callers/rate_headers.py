"""What is left of a caller's limits, in the headers of both vendors. Nothing here does I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headgate.producer.waits.levels import BucketLevel
from headgate.shared.job.ids import rfc3339

RateFields = dict[str, str]

REQUESTS = ("rpm", "rpd")
TOKENS = ("tpm", "input_tpm", "output_tpm")
INPUT_TOKENS = ("tpm", "input_tpm")
OUTPUT_TOKENS = ("tpm", "output_tpm")


@dataclass(frozen=True, slots=True)
class RateLeft:
    """A limit a minute or a day, what is left of it, and the seconds until it is whole again."""

    measure: str
    limit: float
    left: float
    reset_s: float


@dataclass(frozen=True, slots=True)
class CallerRates:
    """All limits of a caller that count requests and tokens, as they were at `at_ms` (Unix ms)."""

    at_ms: int = 0
    found: Sequence[RateLeft] = ()

    def tightest(self, measures: Sequence[str]) -> RateLeft | None:
        """Return the limit of these measures of which the least is left; None without one."""
        bound = [one for one in self.found if one.measure in measures]
        return min(bound, key=lambda one: (one.left, one.limit), default=None)


NO_RATES = CallerRates()


def of_own(levels: Iterable[BucketLevel], now_ms: int) -> list[RateLeft]:
    """Return what is left of the limits of one caller, which may be used at once."""
    return [
        RateLeft(one.measure, one.limit.amount, _level(one), _reset_s(one, now_ms))
        for one in levels
        if one.measure != "concurrent"
    ]


def of_pool(keys: Sequence[Sequence[BucketLevel]], now_ms: int) -> list[RateLeft]:
    """Return what is left of the limits of a provider, over all of its keys.

    Our buckets of a provider are small, and jobs wait for them instead of being refused. So a share
    of the limit counts as left: that which the buckets are full.
    """
    by_measure: dict[str, list[RateLeft]] = {}
    for level in (one for of_key in keys for one in of_key if one.measure != "concurrent"):
        capacity = level.capacity or level.limit.amount
        left = level.limit.amount * min(1.0, _level(level) / capacity)
        one = RateLeft(level.measure, level.limit.amount, left, _reset_s(level, now_ms))
        by_measure.setdefault(level.measure, []).append(one)
    return [
        RateLeft(
            measure, sum(one.limit for one in found), sum(one.left for one in found),
            max(one.reset_s for one in found),
        )
        for measure, found in by_measure.items()
    ]  # fmt: skip


def _level(one: BucketLevel) -> float:
    """Return what may be taken now; an unused bucket is full."""
    full = one.capacity or one.limit.amount
    return max(0.0, full if one.level is None else one.level)


def _reset_s(one: BucketLevel, now_ms: int) -> float:
    return one.wait_s(one.capacity or one.limit.amount, now_ms)


def openai_headers(rates: CallerRates) -> RateFields:
    """Return the headers `x-ratelimit-...`, as OpenAI's API has them."""
    fields: RateFields = {}
    for kind, measures in (("requests", REQUESTS), ("tokens", TOKENS)):
        if (one := rates.tightest(measures)) is not None:
            fields[f"x-ratelimit-limit-{kind}"] = f"{one.limit:.0f}"
            fields[f"x-ratelimit-remaining-{kind}"] = str(math.floor(one.left + 1e-6))
            fields[f"x-ratelimit-reset-{kind}"] = duration(one.reset_s)
    return fields


def anthropic_headers(rates: CallerRates) -> RateFields:
    """Return the headers `anthropic-ratelimit-...`, as Anthropic's API has them."""
    kinds = (("requests", REQUESTS), ("tokens", TOKENS), ("input-tokens", INPUT_TOKENS),
             ("output-tokens", OUTPUT_TOKENS))  # fmt: skip
    fields: RateFields = {}
    for kind, measures in kinds:
        if (one := rates.tightest(measures)) is not None:
            name = f"anthropic-ratelimit-{kind}"
            reset_ms = rates.at_ms + math.ceil(one.reset_s) * 1000
            fields[f"{name}-limit"] = f"{one.limit:.0f}"
            fields[f"{name}-remaining"] = str(math.floor(one.left + 1e-6))
            fields[f"{name}-reset"] = (rfc3339(reset_ms // 1000 * 1000) or "").replace(".000Z", "Z")
    return fields


def duration(seconds: float) -> str:
    """Return a time as OpenAI writes it: 0s, 120ms, 1s, 6m0s, 1h0m3s."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    whole, ms = divmod(ms, 1000)
    minutes, rest = divmod(whole, 60)
    text = f"{rest}.{ms:03d}".rstrip("0").rstrip(".") + "s" if ms else f"{rest}s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
