"""A job on its way: what earlier claims did counts, money is exact or not known."""

from typing import Any

import pytest

from headgate.shared.admission.ticket import ticket_for
from headgate.shared.catalog.catalog import load
from headgate.shared.cost.tokens import ANSWER_TOKENS, MESSAGE_TOKENS, input_tokens
from headgate.shared.job.result import Reply, Usage
from headgate.workers.errors import RateLimited
from headgate.workers.pipeline.job_run import Ending, JobRun
from headgate.workers.stages.claim import Claim, PastAttempt
from tests.support.rig import envelope

FACTS: dict[str, Any] = {
    "model": "m", "state": "failed", "code": None, "message": None, "http_status": None,
    "waited_ms": 0, "cost_pico_usd": 0, "started_at_ms": 1_795_000_000_000,
}  # fmt: skip


def job_with(*history: dict[str, Any], **fields: Any) -> JobRun:
    pasts = tuple(PastAttempt(**(FACTS | facts)) for facts in history)
    return JobRun(envelope(**fields), Claim(2, False, pasts))


def test_attempts_of_earlier_claims_count_with_their_money() -> None:
    job = job_with(
        {"state": "failed", "code": "overloaded", "message": "busy", "http_status": 529},
        {"state": "answered", "cost_pico_usd": 70},
        {"state": "unknown", "cost_pico_usd": None},
    )
    history = job.history
    assert (history.attempts, history.unknown_models, history.cost_pico_usd) == (3, ["m"], 70)
    assert [(f.code, f.http_status) for f in job.failures] == [
        ("overloaded", 529), ("internal", None),
    ]  # fmt: skip
    assert "died" in job.failures[1].message


@pytest.mark.parametrize(
    ("history", "unknown"),
    [
        ([], False),
        ([{"state": "unknown"}], True),
        ([{"state": "unknown", "code": "cancelled"}], True),
        ([{"state": "unknown", "code": "timeout"}], False),
        ([{"state": "unknown"}, {"state": "failed", "code": "timeout"}], False),
    ],
    ids=["nothing", "crash", "stop", "timeout", "crash before a failure"],
)
def test_only_a_request_that_was_under_way_at_the_end_is_left_unknown(
    history: list[dict[str, Any]], unknown: bool
) -> None:
    assert job_with(*history).left_unknown == unknown


@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-mini", "claude-haiku-4-5"])
def test_what_is_learned_from_is_what_the_ticket_of_that_model_said(name: str) -> None:
    catalog = load()
    job = job_with(prompt="0192f3a4-5b6c-7d8e-9f01-23456789abcd", on_model=name)
    for model in (catalog.model("gpt-4o"), catalog.model("claude-haiku-4-5"), catalog.model(name)):
        ticket = ticket_for(job.envelope, model, catalog)
        assert job.input_tokens(model) == ticket.input_tokens
        assert job.input_tokens(model) == input_tokens(job.envelope.request, model)


def test_each_model_of_a_chain_is_counted_with_its_own_vocabulary() -> None:
    pytest.importorskip("bpe_openai", reason="the extra `bpe` is not installed")
    catalog = load()
    job = job_with(prompt="0192f3a4-5b6c-7d8e-9f01-23456789abcd")
    assert job.input_tokens(catalog.model("gpt-4o")) == 25 + MESSAGE_TOKENS + ANSWER_TOKENS
    rough = input_tokens(job.envelope.request)
    assert job.input_tokens(catalog.model("claude-haiku-4-5")) == rough != 32


def test_one_unknown_price_makes_the_sum_unknown() -> None:
    job = job_with()
    for cost in (5, None, 7):
        job.history.add_cost(cost)
    assert job.history.cost_pico_usd is None
    assert job.result(Ending("succeeded"), 1).cost_usd is None


def test_money_is_a_decimal_text_to_the_last_pico() -> None:
    job = job_with()
    job.history.add_cost(1)
    job.history.add_cost(10**12)
    assert job.result(Ending("succeeded"), 1).cost_usd == "1.000000000001"


@pytest.mark.parametrize(
    ("code", "status"),
    [("deadline", "expired"), ("cancelled", "cancelled"), ("timeout", "failed")],
)
def test_the_code_decides_the_status(code: Any, status: str) -> None:
    assert job_with().failed(code, "no").status == status


def test_a_failure_takes_the_wait_before_it() -> None:
    job, model = job_with(), load().model("gpt-4o-mini")
    job.waited_ms = 300
    job.add_failure(model, RateLimited("busy", http_status=429))
    job.add_failure(model, RateLimited("busy", http_status=429))
    assert [failure.waited_ms for failure in job.failures] == [300, 0]
    ending = job.failed("rate_limited", "busy", retryable=True)
    assert ending.error is not None
    assert ending.error.attempts == job.failures
    assert ending.error.attempts is not job.failures


def test_a_result_tells_whether_another_model_answered() -> None:
    job = job_with()
    same = Ending("succeeded", Reply("x", "stop", Usage()), model_used="gpt-4o-mini")
    other = Ending("succeeded", Reply("x", "stop", Usage()), model_used="gpt-4o")
    assert not job.result(same, 1).fallback
    assert job.result(other, 1).fallback
    assert not job.result(job.failed("timeout", "no"), 1).fallback


def test_a_clock_that_was_set_back_gives_no_negative_times() -> None:
    job = job_with(submitted_at_ms=1_800_000_000_000)
    result = job.result(Ending("succeeded"), 1_700_000_000_000)
    assert (result.queued_ms, result.latency_ms) == (0, 0)


def test_the_time_left_counts_from_the_submission() -> None:
    job = job_with(deadline_s=10, submitted_at_ms=1_000_000)
    assert (job.left_ms(1_004_000), job.left_ms(1_011_000)) == (6000, -1000)
