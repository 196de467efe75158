"""The events of webhooks: OpenAI's names where it has some, ours elsewhere; small bodies."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from openai.types.webhooks.unwrap_webhook_event import UnwrapWebhookEvent
from pydantic import TypeAdapter

from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import ErrorReport, Result, Status
from headgate.shared.job.webhook_event import EVENTS, batch_event, chooses, job_event
from tests.support.rig import envelope

AT_MS = 1_790_000_000_123


def ended(job: Envelope, status: Status = "succeeded", **fields: Any) -> Result:
    return Result(id=job.id, status=status, model="gpt-4o-mini", **fields)


def test_a_job_says_what_it_is_and_how_it_ended_and_nothing_more() -> None:
    job = envelope(prompt="a secret", metadata={"secret": "b"})
    error = ErrorReport("timeout", "a secret", True)
    event = job_event(job, ended(job, "failed", content="a secret", error=error), 3, AT_MS)
    body = json.loads(event.body)
    assert body == {
        "id": event.id, "object": "event", "created_at": 1_790_000_000, "type": "job.failed",
        "data": {"id": job.id, "status": "failed", "error_code": "timeout", "batch_id": None},
    }  # fmt: skip
    assert event.id.startswith("evt_")
    assert event == job_event(job, ended(job, "failed", error=error), 3, AT_MS)
    assert event.id != job_event(job, ended(job), 4, AT_MS).id, "a retried job ends anew"


def test_any_text_may_be_the_id_of_a_task() -> None:
    job = replace_id(envelope(), "x\r\n" + "\u00e4" * 120)
    event = job_event(job, ended(job), 1, AT_MS)
    assert event.id.isascii()
    assert len(event.id) <= 64
    assert len(event.body) < 20_000


def replace_id(job: Envelope, job_id: str) -> Envelope:
    return job.model_copy(update={"id": job_id})


@pytest.mark.parametrize(
    ("status", "finish_reason", "name"),
    [
        ("succeeded", "stop", "response.completed"),
        ("succeeded", "length", "response.incomplete"),
        ("failed", None, "response.failed"),
        ("expired", None, "response.failed"),
        ("cancelled", None, "response.cancelled"),
    ],
)
def test_responses_have_openais_events(
    status: Status, finish_reason: str | None, name: str
) -> None:
    job = envelope(dialect="responses", input="hello")
    result = replace(ended(job, status), finish_reason=finish_reason)
    event = job_event(job, result, 1, AT_MS)
    known: Any = TypeAdapter(UnwrapWebhookEvent).validate_json(event.body)
    assert known.type == event.type == name
    assert known.data.id == "resp_" + job.id.replace("-", "")


def test_a_response_says_itself_that_it_is_incomplete() -> None:
    job = envelope(dialect="responses", input="hello")
    result = replace(ended(job), finish_reason="max_tool_calls", message={"status": "incomplete"})
    assert job_event(job, result, 1, AT_MS).type == "response.incomplete"


def test_batches_have_openais_events() -> None:
    for outcome in ("completed", "failed", "cancelled", "expired"):
        event = batch_event("batch_1", outcome, AT_MS)
        known: Any = TypeAdapter(UnwrapWebhookEvent).validate_json(event.body)
        assert known.type == f"batch.{outcome}"
        assert known.type in EVENTS
        assert known.data.id == "batch_1"
        assert known.id == event.id


def test_a_tenant_chooses_events_by_name_and_by_kind() -> None:
    assert chooses(None, "job.failed")
    assert chooses(["job.failed", "batch.*"], "batch.expired")
    assert not chooses(["job.failed", "batch.*"], "job.succeeded")
    assert not chooses([], "job.failed")
