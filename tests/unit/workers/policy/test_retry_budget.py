"""How many retries a provider gets, and when those go that it has no room for now."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.workers.policy.retry_budget import RetryBudget, RetryRules

RULES = RetryRules()


def fresh(rules: RetryRules = RULES, at_ms: int = 0) -> RetryBudget:
    return RetryBudget(rules.burst, at_ms=at_ms)


def retries(budget: RetryBudget, now_ms: int, rules: RetryRules = RULES) -> int:
    """Return how many may go at once."""
    made = 0
    while (booked := budget.after_retry(rules, now_ms, 0)) is not None:
        budget, wait_ms = booked
        assert wait_ms == 0
        made += 1
    return made


@given(calls=st.integers(0, 5000), share=st.floats(0, 1))
def test_retries_are_a_share_of_the_calls_and_ten_more(calls: int, share: float) -> None:
    rules = RetryRules(share)
    budget = fresh(rules, 1000)
    for _ in range(calls):
        budget = budget.after_call(rules, 1000)
    assert 9 + calls * share <= retries(budget, 1000, rules) + 1e-6 + 1 <= 12 + calls * share


def test_by_default_a_fifth_of_the_calls_may_be_retried() -> None:
    budget = fresh()
    for _ in range(1000):
        budget = budget.after_call(RULES, 0)
    assert retries(budget, 0) in (209, 210)


def test_a_quiet_system_has_ten_retries_a_second_and_old_traffic_pays_for_none() -> None:
    budget = fresh()
    for _ in range(1000):
        budget = budget.after_call(RULES, 0)
    assert retries(budget, 3_600_000) == 10
    assert retries(RetryBudget(quiet=0), 500) == 5


@given(st.lists(st.integers(0, 300), min_size=40, max_size=80))
def test_booked_retries_go_one_after_the_other_at_the_rate(gaps_ms: list[int]) -> None:
    budget, now_ms, goes_at_ms = fresh(), 0, list[int]()
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        booked = budget.after_retry(RULES, now_ms, 60_000)
        assert booked is not None
        budget, wait_ms = booked
        goes_at_ms.append(now_ms + wait_ms)
    for first, at_ms in enumerate(goes_at_ms):
        within = [other for other in goes_at_ms[first:] if other < at_ms + 1000]
        assert len(within) <= 21, "ten that have gathered, and ten a second"


def test_a_retry_that_would_come_too_late_is_not_booked() -> None:
    empty = RetryBudget(quiet=0)
    assert empty.after_retry(RULES, 0, 99) is None
    booked = empty.after_retry(RULES, 0, 100)
    assert booked is not None
    assert booked[1] == 100
    assert booked[0].after_retry(RULES, 0, 150) is None


@pytest.mark.parametrize(("per_s", "at_once"), [(0, 0), (0.5, 1), (1, 1), (25, 25)])
def test_the_rate_of_quiet_retries_is_a_setting(per_s: float, at_once: int) -> None:
    rules = RetryRules(share=0, per_s=per_s)
    assert retries(fresh(rules), 0, rules) == at_once
    later = RetryBudget(quiet=0).after_retry(rules, 0, 10**9)
    assert (later is None) == (per_s == 0)
    if later is not None:
        assert later[1] == 1000 / per_s
