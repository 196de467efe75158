"""Counts by bucket of a sketch, packed so that thousands of them are added at the speed of C. Pure.

A packed count is four bytes, the lowest first: 13 bits say which bucket, 19 how often. Packed
counts stay packed counts when they are written one behind the other, so a database adds them up by
joining bytes. Amounts are whole numbers from 0 (ms): buckets from 0 to 4,388, and that of nothing.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping

from headgate.shared.stats.sketch import ZERO, Sketch

_COUNT_BITS = 19
_MOST = (1 << _COUNT_BITS) - 1


def packed(counts: Mapping[int, int]) -> bytes:
    """The counts as bytes, equal for equal counts."""
    words = array("I")
    for index in sorted(counts):
        code, left = index + 1 if index >= 0 else 0, counts[index]
        while left > 0:
            words.append(code << _COUNT_BITS | min(left, _MOST))
            left -= _MOST
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()


def added(parts: Iterable[bytes]) -> Counter[int]:
    """All counts of these bytes together, by bucket."""
    found: Counter[int] = Counter()
    for part in parts:
        words = array("I", part)
        if sys.byteorder == "big":
            words.byteswap()
        for word, times in Counter(words).items():
            code = word >> _COUNT_BITS
            found[code - 1 if code else ZERO] += (word & _MOST) * times
    return found


def whole_quantile(counts: Mapping[int, int], share: float) -> int | None:
    """At least this share of the whole amounts is at or below it; at most 1 % over the true one.

    None where nothing was counted.
    """
    if not counts:
        return None
    # The true one is a whole number not above what is told: so rounding down keeps the bound.
    return math.floor(Sketch(counts).quantile(share) * (1 + 1e-12) + 1e-9)
