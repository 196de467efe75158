"""Sketch: quantiles within 1 %, never below the true one; the same however it was put together."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.stats.sketch import ERROR, Sketch, bucket, most

AMOUNTS = st.one_of(
    st.integers(0, 10**9).map(float),
    st.floats(1e-6, 1e9, allow_nan=False, allow_infinity=False),
)
MANY = st.lists(AMOUNTS, min_size=1, max_size=200)
SHARES = st.floats(0, 1)


def sketch_of(amounts: list[float]) -> Sketch:
    made = Sketch()
    for amount in amounts:
        made.add(amount)
    return made


def true_quantile(amounts: list[float], share: float) -> float:
    """Return the least amount with at least this share of all amounts at or below it."""
    rank = max(1, math.ceil(share * len(amounts) * (1 - 1e-9)))
    return sorted(amounts)[rank - 1]


def same(one: Sketch, other: Sketch) -> bool:
    return one.weights == pytest.approx(other.weights)


@given(MANY, SHARES)
def test_a_quantile_is_never_below_the_true_one_and_at_most_one_percent_above(
    amounts: list[float], share: float
) -> None:
    true = true_quantile(amounts, share)
    told = sketch_of(amounts).quantile(share)
    assert true * (1 - 1e-9) <= told <= true * (1 + ERROR) * (1 + 1e-9)


@given(MANY, MANY)
def test_two_merged_are_the_sketch_of_all_amounts(one: list[float], other: list[float]) -> None:
    merged = sketch_of(one)
    merged.merge(sketch_of(other))
    assert same(merged, sketch_of(one + other))


@given(MANY, st.randoms(use_true_random=False), st.integers(0, 200))
def test_neither_the_order_of_amounts_nor_of_merges_matters(
    amounts: list[float], chance: random.Random, cut: int
) -> None:
    shuffled = chance.sample(amounts, len(amounts))
    left, right = sketch_of(shuffled[cut:]), sketch_of(shuffled[:cut])
    left.merge(right)
    assert same(left, sketch_of(amounts))


@given(MANY, st.floats(0.001, 1), SHARES)
def test_what_fades_alike_keeps_its_quantiles(
    amounts: list[float], factor: float, share: float
) -> None:
    faded = sketch_of(amounts)
    faded.fade(factor)
    assert faded.weight == pytest.approx(len(amounts) * factor)
    kept, before = faded.quantile(share), sketch_of(amounts).quantile(share)
    # On the very edge of a bucket a rounding may decide; then it is the next amount's.
    edges = sorted({most(bucket(amount)) for amount in amounts})
    assert kept == before or (before, kept) in pairwise(edges) or (kept, before) in pairwise(edges)


def test_a_change_is_followed_as_what_was_before_fades() -> None:
    seen = sketch_of([100.0] * 500)
    for _ in range(1000):
        seen.fade(0.5 ** (1 / 200))  # a half-life of 200 amounts
        seen.add(900)
    assert seen.quantile(0.1) == pytest.approx(900, rel=ERROR)


@given(MANY)
def test_the_mean_is_right_within_half_a_percent(amounts: list[float]) -> None:
    true = math.fsum(amounts) / len(amounts)
    assert sketch_of(amounts).mean() == pytest.approx(true, rel=ERROR / 2 + 1e-6, abs=1e-8)


def test_a_trimmed_mean_is_not_moved_by_a_few_that_are_far_off() -> None:
    seen = sketch_of([1.0] * 97 + [1000.0] * 3)
    assert seen.mean(trimmed=0.05) == pytest.approx(1, rel=ERROR)
    assert seen.mean() > 30


def test_equal_amounts_never_exceed_their_bound() -> None:
    for amount in (1, 7, 999, 1000, 1001, 16_384, 100_000):
        told = sketch_of([amount] * 50).bound(0.05)
        assert amount <= told * (1 + 1e-12) <= amount * (1 + ERROR) * (1 + 1e-9)


@pytest.mark.parametrize("miss", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("known", [20, 100, 1000])
def test_a_bound_is_exceeded_as_often_as_promised_also_when_little_is_known(
    miss: float, known: int
) -> None:
    chance = random.Random(7)  # noqa: S311 (lengths of answers, no secret)
    over = rounds = 0
    for _ in range(400_000 // known):
        told = sketch_of([chance.lognormvariate(5, 1) for _ in range(known)]).bound(miss)
        for _ in range(10):
            rounds += 1
            over += chance.lognormvariate(5, 1) > told
    promised = max(miss, 1 / (known + 1))  # more than the largest nobody can know
    # Ten draws share one bound: the error of the share is that of the rounds, three times over.
    assert over / rounds <= promised + 3 * math.sqrt(promised / (rounds / 10))
    assert over / rounds >= 0.5 * miss - 0.005


def test_an_empty_sketch_has_only_zeros() -> None:
    empty = Sketch()
    assert (empty.weight, empty.quantile(0.5), empty.bound(0.05), empty.mean()) == (0, 0, 0, 0)


@given(AMOUNTS)
def test_every_amount_is_in_the_bucket_that_holds_it(amount: float) -> None:
    index = bucket(amount)
    if amount > 1e-6:
        assert most(index - 1) * (1 - 1e-9) <= amount <= most(index) * (1 + 1e-9)
    else:
        assert amount <= 1e-6
