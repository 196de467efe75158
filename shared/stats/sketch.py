"""How amounts are spread, in a few hundred numbers: a sketch of quantiles that can be added. Pure.

Weights by logarithmic bucket, as in DDSketch (Masson, Rim and Lee, VLDB 2019). The bounds of the
buckets are the same everywhere, so that sketches of several workers are added bucket by bucket, in
any order. A quantile is told as the upper bound of its bucket: never below the true one, and at
most 1 % above it. With the lower half of a bucket told, equal amounts would all lie above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ERROR = 0.01
"""How far above the true quantile a told one may be, as a share of it."""

ZERO = -1_000_000
"""The bucket of nothing, and of less than `SMALLEST`."""

SMALLEST = 1e-9

_GROWTH = 1 + ERROR
_PER_LOG = 1 / math.log(_GROWTH)


def bucket(amount: float) -> int:
    """The bucket of this amount: n holds what is over 1.01^(n-1) and at most 1.01^n."""
    return math.ceil(math.log(amount) * _PER_LOG) if amount > SMALLEST else ZERO


def most(index: int) -> float:
    """The largest amount in this bucket."""
    return 0.0 if index == ZERO else _GROWTH**index


class Sketch:
    """Weights by bucket; an answer weighs 1, or its tokens, and less as it ages."""

    __slots__ = ("weights",)

    def __init__(self, weights: Mapping[int, float] | None = None) -> None:
        self.weights: dict[int, float] = dict(weights or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.weights == other.weights

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def weight(self) -> float:
        """The weight of all amounts together."""
        return math.fsum(self.weights.values())

    def add(self, amount: float, weight: float = 1.0) -> None:
        """The amount is counted; one that is negative counts as nothing."""
        index = bucket(amount)
        self.weights[index] = self.weights.get(index, 0.0) + weight

    def merge(self, other: Sketch) -> None:
        """What the other has counted is counted here too."""
        for index, weight in other.weights.items():
            self.weights[index] = self.weights.get(index, 0.0) + weight

    def fade(self, factor: float) -> None:
        """All that was counted so far weighs `factor` of what it did."""
        self.weights = {index: weight * factor for index, weight in self.weights.items()}

    def quantile(self, share: float) -> float:
        """At least this share of the weight is at or below it, as little over that as can be told.

        0 for an empty sketch.
        """
        return self._reaching(share * self.weight)

    def bound(self, miss: float) -> float:
        """What a next amount exceeds with a chance of `miss` at most, if it is like these.

        Of n amounts and a next one each is as likely to be the k-th: the next is over the k-th of
        the n with a chance of 1 - k / (n + 1). So k is (1 - miss) * (n + 1), where the quantile
        would take (1 - miss) * n and miss twice as often with 20 amounts. Where even the largest
        is exceeded more often (n + 1 < 1 / miss), the largest is told.
        """
        return self._reaching((1 - miss) * (self.weight + 1))

    def mean(self, trimmed: float = 0.0) -> float:
        """The mean, within 0.5 %, without this share of the weight at either end; 0 if empty."""
        whole = self.weight
        low, high = trimmed * whole, (1 - trimmed) * whole
        passed = total = kept = 0.0
        for index in sorted(self.weights):
            weight = self.weights[index]
            inside = min(passed + weight, high) - max(passed, low)
            passed += weight
            if inside > 0:
                kept += inside
                total += inside * _middle(index)
        return total / kept if kept > 0 else 0.0

    def _reaching(self, wanted: float) -> float:
        passed, told = 0.0, 0.0
        for index in sorted(self.weights):
            if self.weights[index] <= 0:
                continue
            passed += self.weights[index]
            told = most(index)
            # A grain of tolerance: faded weights are sums of fractions.
            if passed >= wanted * (1 - 1e-9):
                break
        return told


def _middle(index: int) -> float:
    return most(index) * (1 + 1 / _GROWTH) / 2
