"""The line at a job's end: all facts, no content."""

from __future__ import annotations

import json
import logging

import pytest

from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import request_from
from headgate.shared.job.result import ErrorReport, FailedAttempt, Result, Usage
from headgate.workers.celery.log_writer import JsonFormatter
from headgate.workers.clients.job_log import log_end


def envelope(**fields: object) -> Envelope:
    request = request_from({"prompt": "a secret prompt", **fields})
    return Envelope(
        v=1, id="job-1", request=request, model="gpt-4o", model_class="smart", submitted_at_ms=0
    )


SUCCEEDED = Result(
    "job-1", "succeeded", "gpt-4o", content="a secret answer", model_used="gpt-4o-mini",
    usage=Usage(12, output_tokens=34), cost_usd="0.0001", attempts=1, queued_ms=4, latency_ms=812,
    trace_id="abc",
)  # fmt: skip

FAILED = Result(
    "job-1", "failed", "gpt-4o",
    error=ErrorReport(
        "rate_limited", "secret words of the provider", True,
        [FailedAttempt("gpt-4o", "rate_limited", "secret words of the provider", 429, 0)],
    ),
)  # fmt: skip


def line_of(caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    [record] = caplog.records
    return record.levelno, record.getMessage()


def test_a_job_that_succeeded_is_told_at_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headgate.jobs"):
        log_end(envelope(tenant="acme", user="u 1"), SUCCEEDED)
    assert line_of(caplog) == (
        logging.INFO,
        "job job-1 succeeded: model=gpt-4o model_used=gpt-4o-mini tenant=acme user='u 1' "
        "attempts=1 waited_ms=4 latency_ms=812 input_tokens=12 output_tokens=34 cost_usd=0.0001 "
        "trace_id=abc",
    )


def test_a_job_that_failed_is_told_at_warning_with_the_code_of_the_provider(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, "headgate.jobs"):
        log_end(envelope(), FAILED)
    level, text = line_of(caplog)
    assert level == logging.WARNING
    assert text.startswith("job job-1 failed: code=rate_limited http_status=429 model=gpt-4o ")
    assert "secret" not in text


def test_names_from_outside_cannot_start_a_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headgate.jobs"):
        log_end(envelope(tenant="a\njob job-2 succeeded:"), SUCCEEDED)
    assert "\n" not in line_of(caplog)[1]


def test_the_json_form_has_a_field_for_each_fact(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headgate.jobs"):
        log_end(envelope(tenant="acme"), SUCCEEDED)
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert line["message"] == "job ended"
    assert (line["job_id"], line["status"], line["tenant"]) == ("job-1", "succeeded", "acme")
    assert (line["input_tokens"], line["output_tokens"], line["code"]) == (12, 34, None)
    assert "secret" not in json.dumps(line)


def test_nothing_is_made_for_a_level_that_is_off(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "headgate.jobs"):
        log_end(envelope(), SUCCEEDED)
    assert not caplog.records
