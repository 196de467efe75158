"""What counts as a model's fault, how many retries there are, and whom a job waits for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from headgate.workers.policy.breaker import (
    LOOK_MS,
    RetryBudget,
    fault_text,
    is_fault,
    wait_for_one,
)


def test_faults_of_the_model_count_and_those_of_requests_and_limits_do_not() -> None:
    counted = (
        AttemptTimeout, ConnectionLost, InvalidOutput, Overloaded, ProviderFault, Unauthorized,
    )  # fmt: skip
    others = (RequestRefused, RateLimited, QuotaExhausted)
    assert [is_fault(kind("no")) for kind in counted] == [True] * len(counted)
    assert [is_fault(kind("no")) for kind in others] == [False] * len(others)
    assert not is_fault(AttemptError("no", code="context_length"))


def test_a_timeout_by_the_jobs_own_deadline_is_no_fault_of_the_model() -> None:
    assert not is_fault(AttemptTimeout("no"), cut_short=True)
    assert is_fault(ConnectionLost("no"), cut_short=True)


def test_a_wrong_base_url_opens_no_breaker() -> None:
    class WrongAddress(ProviderFault):
        retryable = False

    assert is_fault(ProviderFault("no"))
    assert not is_fault(WrongAddress("no"))


def test_the_timeouts_of_one_job_are_one_fault_of_the_model() -> None:
    assert is_fault(AttemptTimeout("no"), again=False)
    assert not is_fault(AttemptTimeout("no"), again=True)
    assert is_fault(ConnectionLost("no"), again=True)


def retries(purse: RetryBudget, now_ms: int) -> int:
    paid = 0
    while (left := purse.after_retry(now_ms)) is not None:
        purse, paid = left, paid + 1
    return paid


@given(calls=st.integers(0, 5000), share=st.floats(0, 1))
def test_retries_are_a_share_of_the_calls_and_ten_more(calls: int, share: float) -> None:
    purse = RetryBudget(at_ms=1000)
    for _ in range(calls):
        purse = purse.after_call(share, 1000)
    assert 9 + calls * share <= retries(purse, 1000) + 1e-6 + 1 <= 12 + calls * share


def test_a_quiet_system_has_one_retry_a_second_and_old_traffic_pays_for_none() -> None:
    purse = RetryBudget(at_ms=0)
    for _ in range(1000):
        purse = purse.after_call(0.1, 0)
    assert retries(purse, 3_600_000) == 10
    empty = RetryBudget(quiet=0, at_ms=0)
    assert retries(empty, 3000) == 3


def test_a_job_waits_in_line_for_one_model_and_looks_for_the_first_of_several() -> None:
    assert wait_for_one({"a": 500}, 10_000, 0.5) == ("a", 0)
    assert wait_for_one({"a": 8000, "b": 4000}, 60_000, 0) == ("b", 4000)
    assert wait_for_one({"a": 8000, "b": 4000}, 2000, 0.5) == ("b", 2000)
    assert wait_for_one({"a": 80_000, "b": 90_000}, 600_000, 0.4)[1] == LOOK_MS * 1.1
    assert wait_for_one({"a": 80_000, "b": 90_000}, -5, 0.4)[1] == 1000


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Connection refused", "provider_error: Connection refused"),
        (
            "ask jane.doe+x@mail.example.org\nor org-abcdef123456",
            "provider_error: ask [...] or [...]",
        ),
        ("half of a pair: \ud83d", "provider_error: half of a pair: ?"),
        ("x" * 500, f"provider_error: {'x' * 181}..."),
    ],
)
def test_a_fault_is_told_in_a_line_without_persons_and_accounts(message: str, told: str) -> None:
    assert fault_text(ProviderFault(message)) == told
