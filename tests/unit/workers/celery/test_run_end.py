"""What Celery's events tell of a run, and what they show of its job."""

from typing import Any

import pytest

from headgate.shared.errors import ErrorCode
from headgate.shared.job.result import ErrorReport, Result, Status
from headgate.workers.celery.run_end import DEFERRED, IN_LINE, TAKEN, RunEnd
from headgate.workers.celery.running_job import described


def ended(status: Status, code: ErrorCode | None = None) -> Result:
    report = None if code is None else ErrorReport(code, "quotes the prompt", False)
    return Result("id", status, "gpt-4o-mini", error=report)


@pytest.mark.parametrize(
    ("result", "event", "fields"),
    [
        (ended("succeeded"), "task-succeeded", {}),
        (ended("failed", "overloaded"), "task-failed", {"exception": "JobFailed('overloaded')"}),
        (ended("expired", "deadline"), "task-failed", {"exception": "JobFailed('deadline')"}),
        (ended("cancelled", "cancelled"), "task-revoked",
         {"exception": "TaskRevokedError('cancelled')", "expired": False}),
        (ended("expired", "expired"), "task-revoked",
         {"exception": "TaskRevokedError('expired')", "expired": True}),
    ],
)  # fmt: skip
def test_an_end_has_its_own_event_with_its_code_and_never_the_errors_text(
    result: Result, event: str, fields: dict[str, Any]
) -> None:
    end = RunEnd.of(result)
    sent = end.fields(0.5)
    assert end.event == event
    assert sent.items() >= {"result": result.status, "runtime": 0.5, **fields}.items()
    assert "quotes the prompt" not in str(sent)


def test_a_job_that_comes_again_is_retried_and_one_that_another_has_tells_nothing() -> None:
    assert {IN_LINE.event, DEFERRED.event} == {"task-retried"}
    assert TAKEN.event is None


@pytest.mark.parametrize(
    ("args", "kwargs", "shown"),
    [
        ([{"v": 1, "model": "m", "request": {"tenant": "acme", "prompt": "secret"}}], {},
         "{'model': 'm', 'tenant': 'acme'}"),
        ([{"prompt": "secret", "model": "m", "user": "secret"}], {}, "{'model': 'm'}"),
        ([], {"prompt": "secret", "tenant": "acme"}, "{'tenant': 'acme'}"),
        ([{"v": 1, "request": "secret"}], {}, "{}"),
        (["secret"], {}, "{}"),
        ([{"model": ["secret"], "tenant": {"secret": 1}}], {}, "{}"),
        ([{"model": "secret" * 30, "tenant": "secret\n"}], {}, "{}"),
    ],
)  # fmt: skip
def test_a_job_is_described_by_its_model_and_its_tenant_alone(
    args: list[Any], kwargs: dict[str, Any], shown: str
) -> None:
    assert described(args, kwargs) == shown
