"""Histogram: packed counts add up, and quantiles are those of a sketch, in one pass."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.stats.histogram import added, count_and_quantiles, packed
from headgate.shared.stats.sketch import ZERO, Sketch, bucket

COUNTS = st.dictionaries(
    st.just(ZERO) | st.integers(0, bucket(10**12)), st.integers(1, 2**21), max_size=30
)
SHARES = (0.0, 0.5, 0.95, 0.99, 1.0)


@given(st.lists(COUNTS, max_size=5))
def test_packed_counts_add_up_joined_and_apart(parts: list[dict[int, int]]) -> None:
    total: Counter[int] = Counter()
    for part in parts:
        total.update(part)
    bytes_of_parts = [packed(part) for part in parts]
    assert added(bytes_of_parts) == added([b"".join(bytes_of_parts)]) == total


@given(st.lists(COUNTS.filter(len), min_size=1, max_size=3), st.sampled_from((1, 2_000)))
def test_quantiles_are_those_of_the_sketch_rounded_down(
    parts: list[dict[int, int]], times: int
) -> None:
    """`times`: also of more counts than are sorted one by one."""
    total: Counter[int] = Counter()
    for part in parts * times:
        total.update(part)
    joined = b"".join(map(packed, parts)) * times
    sketch = Sketch(total)
    wanted = [math.floor(sketch.quantile(share) * (1 + 1e-12) + 1e-9) for share in SHARES]
    assert count_and_quantiles(joined, SHARES) == (total.total(), wanted)


def test_without_counts_there_is_no_quantile() -> None:
    assert count_and_quantiles(b"", (0.5, 0.99)) == (0, [None, None])
