"""Counts by bucket of a sketch as bytes, so that C code adds up thousands of them. Pure.

A packed count has four bytes, the lowest first: 13 bits for the bucket, 19 bits for the count.
Joined packed counts are packed counts again, so a database adds them up by joining bytes. Amounts
are whole numbers from 0 (ms): buckets 0 to 4,388, and the bucket ZERO.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

from headgate.shared.stats.sketch import ZERO, Sketch

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
    counts: Counter[int] = Counter()
    for part in parts:
        words = array("I", part)
        if sys.byteorder == "big":
            words.byteswap()
        for word, times in Counter(words).items():
            code = word >> _COUNT_BITS
            counts[code - 1 if code else ZERO] += (word & _MAX_COUNT) * times
    return counts


def whole_quantile(counts: Mapping[int, int], share: float) -> int | None:
    """Return the quantile of whole amounts, at most 1 % above the true one; None without counts.

    At least `share` (0 to 1) of the amounts is at or below it.
    """
    if not counts:
        return None
    # The true quantile is a whole number at or below the sketch's: rounding down keeps the bound.
    return math.floor(Sketch(counts).quantile(share) * (1 + 1e-12) + 1e-9)
