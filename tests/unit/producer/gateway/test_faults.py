"""What errors become over HTTP: no text for one caller tells of another, or of an address."""

from __future__ import annotations

import pytest

from headgate.producer.errors import IdempotencyConflict, SubmitInterrupted
from headgate.producer.gateway.calls.faults import fault_of, fault_of_result
from headgate.shared.job.result import ErrorReport, Result


def test_a_submit_that_was_interrupted_names_no_address() -> None:
    fault = fault_of(SubmitInterrupted("Redis at redis://10.0.0.7:6379", "gone", [], ["0193-7"]))
    assert (fault.code, fault.retryable) == ("unavailable", True)
    assert "10.0.0.7" not in fault.message


def test_a_conflict_names_no_job_of_another_caller() -> None:
    fault = fault_of(IdempotencyConflict("k-1", "0193-of-another"))
    assert (fault.code, "k-1" in fault.message) == ("conflict", True)
    assert "0193-of-another" not in fault.message


@pytest.mark.parametrize(
    ("code", "retryable", "wait_s"),
    [("rate_limited", True, 1), ("overloaded", True, 5), ("budget_exceeded", False, None)],
)
def test_a_job_that_a_limit_refused_says_when_to_ask_again(
    code: str, retryable: bool, wait_s: float | None
) -> None:
    error = ErrorReport(code, "no", retryable)  # type: ignore[arg-type]
    assert fault_of_result(Result("j", "failed", "m", error=error)).retry_after_s == wait_s
