"""A sketch: the distribution of amounts in a few hundred numbers that can be added up. Pure.

It holds a weight for each logarithmic bucket, as DDSketch does (Masson, Rim and Lee, VLDB 2019).
All sketches have the same buckets, so sketches of several workers are added bucket by bucket, in
any order. A quantile is the upper end of its bucket: at or above the true quantile, and at most 1 %
above it. DDSketch returns the middle, which would be below all amounts if they were equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

ERROR = 0.01
"""How far a quantile may be above the true one, as a share of it."""

ZERO = -1_000_000
"""The bucket of amounts up to `SMALLEST`."""

SMALLEST = 1e-9

_GROWTH = 1 + ERROR
_PER_LOG = 1 / math.log(_GROWTH)


def bucket(amount: float) -> int:
    """Return the bucket of this amount: n holds amounts over 1.01^(n-1) and up to 1.01^n."""
    return math.ceil(math.log(amount) * _PER_LOG) if amount > SMALLEST else ZERO


def most(index: int) -> float:
    """Return the largest amount in this bucket."""
    return 0.0 if index == ZERO else _GROWTH**index


class Sketch:
    """Weights by bucket. An answer weighs 1, or as much as its tokens, and less as it ages."""

    __slots__ = ("weights",)

    def __init__(self, weights: Mapping[int, float] | None = None) -> None:
        self.weights: dict[int, float] = dict(weights or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.weights == other.weights

    __hash__ = None  # type: ignore[assignment]  # a sketch is mutable

    @property
    def weight(self) -> float:
        """The weight of all amounts together."""
        return math.fsum(self.weights.values())

    def add(self, amount: float, weight: float = 1.0) -> None:
        """Add an amount; a negative one counts as 0."""
        index = bucket(amount)
        self.weights[index] = self.weights.get(index, 0.0) + weight

    def merge(self, other: Sketch) -> None:
        """Add the weights of the other sketch."""
        for index, weight in other.weights.items():
            self.weights[index] = self.weights.get(index, 0.0) + weight

    def fade(self, factor: float) -> None:
        """Multiply all weights by `factor`."""
        self.weights = {index: weight * factor for index, weight in self.weights.items()}

    def quantile(self, share: float) -> float:
        """Return the quantile; 0 for an empty sketch.

        At least `share` (0 to 1) of the weight is at or below it. It is at most 1 % too high.
        """
        return self._reaching(share * self.weight)

    def bound(self, miss: float) -> float:
        """Return the amount that the next one exceeds with a probability of at most `miss`.

        The next amount is assumed to come from the same distribution. It is then above the k-th of
        n amounts with a probability of 1 - k / (n + 1), so k is (1 - miss) * (n + 1). The plain
        quantile takes (1 - miss) * n, and misses twice as often with 20 amounts. With too few
        amounts (n + 1 < 1 / miss) this is the largest one.
        """
        return self._reaching((1 - miss) * (self.weight + 1))

    def mean(self, trimmed: float = 0.0) -> float:
        """Return the mean within 0.5 %; 0 for an empty sketch.

        `trimmed` is the share of the weight at either end that does not count.
        """
        whole = self.weight
        low, high = trimmed * whole, (1 - trimmed) * whole
        passed = total = counted = 0.0
        for index in sorted(self.weights):
            weight = self.weights[index]
            inside = min(passed + weight, high) - max(passed, low)
            passed += weight
            if inside > 0:
                counted += inside
                total += inside * _middle(index)
        return total / counted if counted > 0 else 0.0

    def _reaching(self, wanted: float) -> float:
        passed, amount = 0.0, 0.0
        for index in sorted(self.weights):
            if self.weights[index] <= 0:
                continue
            passed += self.weights[index]
            amount = most(index)
            # With a small tolerance, because faded weights are sums of fractions.
            if passed >= wanted * (1 - 1e-9):
                break
        return amount


def _middle(index: int) -> float:
    return most(index) * (1 + 1 / _GROWTH) / 2
