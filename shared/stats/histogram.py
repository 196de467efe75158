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
from functools import cache
from itertools import accumulate

from headgate.shared.stats.sketch import ZERO, most

_COUNT_BITS = 19
_MAX_COUNT = (1 << _COUNT_BITS) - 1

_MANY = 10_000
"""So many packed counts are first added up, which takes less time than to sort them."""


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
        for word, times in Counter(_words(part)).items():
            code = word >> _COUNT_BITS
            counts[code] = counts.get(code, 0) + (word & _MAX_COUNT) * times
    return Counter({code - 1 if code else ZERO: count for code, count in counts.items()})


def count_and_quantiles(joined: bytes, shares: Sequence[float]) -> tuple[int, list[int | None]]:
    """Return how many whole amounts these packed counts have, and their quantiles.

    At least `share` (0 to 1) of the amounts is at or below its quantile, which is at most 1 % above
    the true one. Without counts they are None.
    """
    words = _words(joined)
    if len(words) > _MANY:
        words = _words(packed(added([joined])))
    in_order = sorted(words)  # the bucket comes first in a word
    reached = list(accumulate([word & _MAX_COUNT for word in in_order]))
    if not reached:
        return 0, [None] * len(shares)
    total = reached[-1]
    places = [bisect_left(reached, share * total * (1 - 1e-9)) for share in shares]
    return total, [_whole_most(in_order[place] >> _COUNT_BITS) for place in places]


@cache
def _whole_most(code: int) -> int:
    # The true quantile is a whole number at or below the amount: rounding down keeps the bound.
    return math.floor(most(code - 1 if code else ZERO) * (1 + 1e-12) + 1e-9)


def _words(joined: bytes) -> array[int]:
    words = array("I", joined)
    if sys.byteorder == "big":
        words.byteswap()
    return words
