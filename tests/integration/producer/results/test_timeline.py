"""What `job show` reads of a job: events in order, money, and no prompt unless it is asked for."""

from __future__ import annotations

import json

import orjson
import pytest
from sqlalchemy import Engine, update

from headgate import UnknownJob
from headgate.producer.results.timeline import timeline
from headgate.shared.database.tables import attempts, audit, jobs
from tests.support.old_rows import put_job

END_MS = 1_760_000_000_000
CONTENT = "my prompt and my answer"


def put_failed_job(engine: Engine) -> None:
    request = {"prompt": CONTENT, "metadata": {"run": 7}}
    result = {
        "id": "a",
        "status": "failed",
        "content": CONTENT,
        "model": "gpt-4o",
        "error": {"code": "rate_limited", "message": "slow down", "retryable": True},
    }
    put_job(
        engine, END_MS, job_id="a", status="failed", started_ms=END_MS - 900,
        started_at_ms=END_MS - 800, fence=2, envelope=orjson.dumps({"request": request}).decode(),
        result=orjson.dumps(result).decode(),
    )  # fmt: skip
    with engine.begin() as connection:
        failed = {
            "code": "rate_limited",
            "message": "slow down",
            "http_status": 429,
            "state": "failed",
            "waited_ms": 120,
            "latency_ms": 30,
            "cost_pico_usd": 0,
        }
        connection.execute(update(attempts).values(**failed))
        connection.execute(update(audit).values(error_code="rate_limited", cost_pico_usd=0))


def test_a_timeline_tells_waits_attempts_and_money_in_order(engine: Engine) -> None:
    put_failed_job(engine)
    found = timeline(engine, "a")
    assert [one.kind for one in found.events] == ["submitted", "started", "attempt", "failed"]
    _, started, attempt, ended = found.events
    assert started.facts == {"queued_ms": 100}
    assert (attempt.facts["waited_ms"], attempt.facts["http_status"]) == (120, 429)
    assert (ended.facts["took_ms"], ended.facts["code"]) == (900, "rate_limited")
    assert (found.code, found.message, found.cost_usd) == ("rate_limited", "slow down", "0")
    assert (found.claims, found.metadata) == (2, {"run": 7})


def test_a_timeline_holds_no_prompt_and_no_answer_unless_asked_for(engine: Engine) -> None:
    put_failed_job(engine)
    assert CONTENT not in json.dumps(timeline(engine, "a").as_json())
    shown = timeline(engine, "a", content=True).as_json()["content"]
    assert shown["request"]["prompt"] == shown["result"]["content"] == CONTENT


def test_of_a_pruned_job_its_audit_line_and_attempts_are_left(engine: Engine) -> None:
    put_job(engine, END_MS, job_id="a", row=False, cost_pico_usd=5_000_000)
    found = timeline(engine, "a", content=True)
    assert (found.status, found.cost_usd, found.tenant) == ("succeeded", "0.000005", "acme")
    assert [one.kind for one in found.events] == ["submitted", "started", "attempt", "succeeded"]
    assert found.content == {"request": None, "result": None}


def test_an_open_job_shows_what_it_has_cost_so_far(engine: Engine) -> None:
    put_job(engine, None, job_id="a", started_ms=END_MS, cost_pico_usd=7_000_000)
    found = timeline(engine, "a")
    assert (found.status, found.cost_usd, found.code) == ("queued", "0.000007", None)
    assert [one.kind for one in found.events] == ["submitted", "attempt"]
    with engine.begin() as connection:
        unknown = {"state": "unknown", "cost_pico_usd": None}
        connection.execute(update(attempts).values(**unknown))
        connection.execute(update(jobs).values(status="running"))
    assert timeline(engine, "a").cost_usd is None


def test_an_unknown_job_is_told(engine: Engine) -> None:
    with pytest.raises(UnknownJob):
        timeline(engine, "a")
