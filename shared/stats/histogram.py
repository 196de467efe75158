"""Counts by bucket of a sketch as bytes, so that C code adds up thousands of them. Pure.

A packed count has four bytes, the lowest first: 13 bits for the bucket, 19 bits for the count.
Joined packed counts are packed counts again, so a database adds them up by joining bytes. Amounts
are whole numbers from 0 (ms): buckets 0 to 4,388, and the bucket ZERO.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from headgate.shared.stats.sketch import ZERO, most

_COUNT_BITS = 19
_MAX_COUNT = (1 << _COUNT_BITS) - 1


def packed(counts: Mapping[int, int]) -> bytes:
    """Return the counts by bucket as bytes; equal counts give equal bytes."""
    words = array("I")
    for index in sorted(counts):
        code, left = index + 1 if index >= 0 else 0, counts[index]
        while left > 0:
            words.append(code << _COUNT_BITS | min(left, _MAX_COUNT))
            left -= _MAX_COUNT
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def added(parts: Iterable[bytes]) -> Counter[int]:
    """Return the sum of all counts in these bytes, by bucket."""
    counts: dict[int, int] = {}
    for part in parts:
        words = array("I", part)
        if sys.byteorder == "big":
            words.byteswap()
        for word, times in Counter(words).items():
            code = word >> _COUNT_BITS
            counts[code] = counts.get(code, 0) + (word & _MAX_COUNT) * times
    return Counter({code - 1 if code else ZERO: count for code, count in counts.items()})


def whole_quantiles(counts: Mapping[int, int], shares: Sequence[float]) -> list[int | None]:
    """Return the quantiles of whole amounts, at most 1 % above the true ones; None without counts.

    At least `share` (0 to 1) of the amounts is at or below each.
    """
    if not counts:
        return [None] * len(shares)
    buckets = sorted(counts)
    reached = list(accumulate(map(counts.__getitem__, buckets)))
    found: list[int | None] = []
    for share in shares:
        amount = most(buckets[bisect_left(reached, share * reached[-1] * (1 - 1e-9))])
        # The true quantile is a whole number at or below the amount: rounding down keeps the bound.
        found.append(math.floor(amount * (1 + 1e-12) + 1e-9))
    return found
