"""Retry: full jitter, the provider's own wait, and what no repetition can mend."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.catalog import catalog
from headgate.workers.errors import (
    AttemptError,
    AttemptTimeout,
    ConnectionLost,
    InvalidOutput,
    Overloaded,
    ProviderFault,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unauthorized,
)
from headgate.workers.policy.retry import Again, Decision, GiveUp, NextModel, RetryLimits, decide

LIMITS = RetryLimits(5, 8, 1000, 30_000)
DAY_MS = 86_400_000


def after(error: AttemptError, tries: int = 1, chance: float = 0.5, **changed: int) -> Decision:
    facts = {"tries_of_job": tries, "left_ms": DAY_MS, "has_next": True, **changed}
    return decide(
        error, tries_of_model=tries, limits=LIMITS, chance=chance,
        tries_of_job=facts["tries_of_job"], left_ms=facts["left_ms"],
        has_next=bool(facts["has_next"]),
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind", [RateLimited, Overloaded, AttemptTimeout, ConnectionLost, ProviderFault, InvalidOutput]
)
def test_what_may_pass_is_tried_again(kind: type[AttemptError]) -> None:
    assert after(kind("no")) == Again(500)


@pytest.mark.parametrize("kind", [QuotaExhausted, Unauthorized])
def test_money_and_keys_are_left_to_another_model(kind: type[AttemptError]) -> None:
    assert after(kind("no", retry_after_ms=5)) == NextModel()


def test_a_wrong_request_is_wrong_everywhere() -> None:
    assert after(RequestRefused("no")) == GiveUp()


@pytest.mark.parametrize(("tries", "longest_ms"), [(1, 1000), (2, 2000), (3, 4000), (4, 8000)])
def test_the_wait_is_drawn_below_a_bound_that_doubles(tries: int, longest_ms: int) -> None:
    assert after(ProviderFault("no"), tries, chance=0.0) == Again(0)
    assert after(ProviderFault("no"), tries, chance=0.999) == Again(int(longest_ms * 0.999))


def test_the_bound_grows_no_further_than_its_maximum() -> None:
    patient = RetryLimits(100, 100, 1000, 30_000)
    for tries in (6, 30, 99):
        decision = decide(
            ProviderFault("no"), tries_of_model=tries, tries_of_job=tries, limits=patient,
            left_ms=DAY_MS, chance=0.5,
        )  # fmt: skip
        assert decision == Again(15_000)


def test_a_model_and_a_job_have_only_so_many_tries() -> None:
    assert after(ProviderFault("no"), 5) == NextModel()
    assert after(ProviderFault("no"), 1, tries_of_job=8) == NextModel()


def test_retry_after_is_obeyed_up_to_its_cap_and_to_the_deadline() -> None:
    hour = RateLimited("no", retry_after_ms=3_600_000)
    assert after(hour) == Again(3_600_500)
    assert after(hour, left_ms=3_600_000) == NextModel()
    assert after(RateLimited("no", retry_after_ms=7_200_000)) == Again(3_600_500)


def test_a_wait_that_outlasts_the_job_leaves_it_to_another_model_or_to_a_test() -> None:
    for_ever = Overloaded("no", retry_after_ms=99_999_999_999_000)
    assert after(for_ever) == NextModel()
    assert after(for_ever, has_next=False) == Again(3_600_500)
    assert after(for_ever, has_next=False, left_ms=3_600_000) == NextModel()


def test_a_wait_of_nothing_backs_off_as_any_other_failure() -> None:
    assert after(RateLimited("no", retry_after_ms=0), 4) == after(RateLimited("no"), 4)


def test_a_wait_that_would_miss_the_deadline_leaves_the_model() -> None:
    assert after(ProviderFault("no"), left_ms=501) == Again(500)
    assert after(ProviderFault("no"), left_ms=500) == NextModel()
    assert after(ProviderFault("no"), left_ms=-5) == NextModel()


@given(
    tries=st.integers(1, 10_000),
    chance=st.floats(0, 1, exclude_max=True),
    left_ms=st.integers(-1000, DAY_MS),
    retry_after_ms=st.none() | st.integers(0, DAY_MS),
)
def test_no_wait_is_ever_negative_too_short_or_past_the_deadline(
    tries: int, chance: float, left_ms: int, retry_after_ms: int | None
) -> None:
    limits = RetryLimits(10**9, 10**9, 1000, 30_000)
    decision = decide(
        RateLimited("no", retry_after_ms=retry_after_ms), tries_of_model=tries, tries_of_job=tries,
        limits=limits, left_ms=left_ms, chance=chance,
    )  # fmt: skip
    if isinstance(decision, Again):
        assert min(retry_after_ms or 0, 3_600_000) <= decision.wait_ms <= max(0, left_ms)
    else:
        assert decision == NextModel()


def test_the_catalogs_figures_for_a_model_go_before_the_settings() -> None:
    model = catalog.load().model("gpt-4o-mini")
    assert LIMITS.of(model) == LIMITS
    own = model.model_copy(update={"max_attempts": 2, "backoff_s": 0.5, "backoff_max_s": 3.0})
    assert LIMITS.of(own) == RetryLimits(2, 8, 500, 3000)
