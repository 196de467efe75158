"""What counts as a model's fault, which retries load a provider, and whom a job waits for."""

import pytest

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
    fault_text,
    is_fault,
    loads_provider,
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


def test_only_what_loads_a_provider_takes_from_its_retry_budget() -> None:
    loading = (
        ConnectionLost("cut", billed=None), Overloaded("no"), ProviderFault("no"),
        AttemptTimeout("no"), InvalidOutput("no"),
    )  # fmt: skip
    free = (ConnectionLost("refused", billed=False), RateLimited("no"), RequestRefused("no"))
    assert [loads_provider(error) for error in loading] == [True] * len(loading)
    assert [loads_provider(error) for error in free] == [False] * len(free)


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
