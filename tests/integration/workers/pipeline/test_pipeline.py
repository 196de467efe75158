"""The pipeline from message to result: answers, the cache, retries, fallbacks, limits, money."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from sqlalchemy import update

from headgate.shared.admission.grant import Elsewhere, Held
from headgate.shared.admission.ticket import Ticket, ticket_for
from headgate.shared.broker.keys import Keys
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.errors import InvalidRequest, JobFailed
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import Usage
from headgate.shared.job.result_text import decode_result
from headgate.workers.clients.memory_bounds import MB, MemoryBounds
from headgate.workers.errors import (
    AttemptTimeout,
    Gate,
    Overloaded,
    ProviderFault,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    ResponseTooLarge,
    Unauthorized,
)
from headgate.workers.pipeline.outcome import AlreadyTaken, Deferred
from headgate.workers.policy.retry import RetryLimits
from headgate.workers.stages import cache
from headgate.workers.stages.publish import Publish
from tests.support.pipeline import (
    COST_PICO_USD,
    USAGE,
    PlayedPipeline,
    answer,
    fault,
    job_for,
    played_pipeline,
)
from tests.support.rig import envelope
from tests.support.servers import ValkeyServer


@pytest.fixture
async def played(
    database_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[PlayedPipeline]:
    async with played_pipeline(database_url, valkey.url, tmp_path) as played:
        yield played


async def test_an_answered_job_has_its_result_everywhere(played: PlayedPipeline) -> None:
    job = job_for(prompt="2 + 2?", metadata={"n": 1}, tenant="acme", user="u1")
    result = await played.result(job)
    assert (result.status, result.content, result.model_used) == ("succeeded", "four", "alpha")
    assert (result.usage, result.cost_usd, result.attempts) == (USAGE, "0.00005", 1)
    assert (result.cached, result.fallback, result.error) == (None, False, None)
    assert result.message == answer().reply.message
    assert result.metadata == {"n": 1}
    assert result.latency_ms is not None

    assert played.attempts(job) == [("alpha", "answered", None)]
    [attempt] = played.rows(attempts, job)
    assert (attempt.cost_pico_usd, attempt.request_id) == (COST_PICO_USD, "req_1")
    row = played.row(job)
    assert (row.status, row.fence, row.tenant) == ("succeeded", 1, "acme")
    assert row.finished_at_ms is not None
    audited = played.audited(job)
    assert (audited.cost_pico_usd, audited.user_id, audited.attempts) == (COST_PICO_USD, "u1", 1)
    assert (audited.input_tokens, audited.output_tokens) == (10, 20)

    found = played.celery(job)
    assert found.state == "SUCCESS"
    assert found.get(timeout=5) == result.as_json()


async def test_the_provider_is_given_the_time_that_is_left(played: PlayedPipeline) -> None:
    await played.result(job_for(deadline_s=20))
    await played.result(job_for(prompt="other"))
    first, second = played.provider.asked
    assert 5 < first.timeout_s <= 20
    assert second.timeout_s == 30
    assert first.model == "alpha"


async def test_an_equal_request_is_answered_from_the_cache_and_saves_its_price(
    played: PlayedPipeline,
) -> None:
    first, second = job_for(prompt="2 + 2?"), job_for(prompt="2 + 2?", user="another")
    await played.result(first)
    result = await played.result(second)
    assert (result.status, result.content, result.cached) == ("succeeded", "four", "exact")
    assert result.message == answer().reply.message
    assert (result.cost_usd, result.attempts, result.usage) == ("0", 0, Usage())
    assert len(played.provider.asked) == 1
    audited = played.audited(second)
    assert (audited.cost_pico_usd, audited.saved_pico_usd) == (0, COST_PICO_USD)
    assert played.attempts(second) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "3 + 3?"},
        {"tenant": "other"},
        {"params": {"temperature": 0.5}},
        {"cache": {"mode": "off"}},
        {"model": "lone"},
    ],
    ids=str,
)
async def test_another_question_is_asked(played: PlayedPipeline, fields: dict[str, Any]) -> None:
    await played.result(job_for(prompt="2 + 2?"))
    result = await played.result(job_for(**({"model": "alpha", "prompt": "2 + 2?"} | fields)))
    assert result.cached is None
    assert len(played.provider.asked) == 2


async def test_a_request_without_cache_leaves_nothing_in_it(played: PlayedPipeline) -> None:
    await played.result(job_for(cache={"mode": "off"}))
    assert (await played.result(job_for())).cached is None


async def test_a_failed_attempt_is_repeated_and_listed(played: PlayedPipeline) -> None:
    played.provider.play(fault(ProviderFault, http_status=500), fault(Overloaded, http_status=529))
    job = job_for()
    result = await played.result(job)
    assert (result.status, result.attempts, result.model_used) == ("succeeded", 3, "alpha")
    assert played.attempts(job) == [
        ("alpha", "failed", "provider_error"),
        ("alpha", "failed", "overloaded"),
        ("alpha", "answered", None),
    ]
    assert [row.n for row in played.rows(attempts, job)] == [1, 2, 3]
    assert played.audited(job).cost_pico_usd == COST_PICO_USD


async def test_retry_after_is_obeyed(played: PlayedPipeline) -> None:
    played.provider.play(fault(RateLimited, http_status=429, retry_after_ms=300))
    began = time.monotonic()
    result = await played.result(job_for())
    assert time.monotonic() - began >= 0.3
    assert result.attempts == 2


async def test_a_long_retry_after_defers_the_job_with_its_history(played: PlayedPipeline) -> None:
    played.provider.play(fault(RateLimited, http_status=429, retry_after_ms=60_000))
    job = job_for()
    outcome = await played.run(job)
    assert isinstance(outcome, Deferred)
    assert 60_000 <= outcome.wait_ms <= 60_005
    row = played.row(job)
    assert row.status == "deferred"
    assert 30_000 < row.retry_at_ms - now_ms() <= 60_005
    assert played.celery(job).state == "PENDING"

    early = await played.run(job)  # a second message of the job
    assert isinstance(early, Deferred)
    assert 30_000 < early.wait_ms <= 60_005

    with played.engine.begin() as connection:
        connection.execute(update(jobs).values(retry_at_ms=now_ms() - 1))
    played.open_gates()
    result = await played.result(job)
    assert (result.status, result.attempts) == ("succeeded", 2)
    assert played.attempts(job) == [
        ("alpha", "failed", "rate_limited"),
        ("alpha", "answered", None),
    ]


@pytest.mark.parametrize(
    ("opening_s", "age_ms", "is_limited", "asked"),
    [(0.4, 300, True, 0), (0.4, 300, False, 1), (0, 300, True, 1), (0, 2500, True, 0)],
)
async def test_a_hold_that_waited_for_an_sdk_is_given_back(
    opening_s: float, age_ms: int, is_limited: bool, asked: int,
    database_url: str, valkey: ValkeyServer, tmp_path: Path,
) -> None:  # fmt: skip
    """Else all holds of that time would be spent at once, and the provider refuse some of them.

    The clock is the test's, and goes on by the time of the import alone.
    """
    played: PlayedPipeline
    at_ms = now_ms()

    def clock_ms() -> int:
        return at_ms + int(1000 * opening_s if played.has_opened else 0)

    async with played_pipeline(database_url, valkey.url, tmp_path, clock_ms=clock_ms) as played:
        totals = {"rpm": 1} if is_limited else {}
        job, models = job_for(), played.pipeline.catalog
        reserved = await played.hold.reserve(
            job.id, "1.1", ticket_for(job, models.models["alpha"], models)
        )
        assert isinstance(reserved, Held)
        hold = replace(reserved, granted_at_ms=at_ms - age_ms, totals=totals)
        outcome = await played.run(job, grant=hold)
        assert len(played.provider.asked) == asked
        if not asked:
            assert isinstance(outcome, Deferred)
            assert outcome.wait_ms == 0
            assert outcome.ticket
            assert (await played.result(job)).status == "succeeded"


async def test_a_job_that_a_gate_holds_up_for_long_waits_there(
    played: PlayedPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """There `headgate resume pool` reaches it; for a minute it keeps its own time."""
    for wait_ms, deferred_ms in ((59_000, 59_000), (600_000, 0), (10**14, 0)):
        refused = fault(RateLimited, retry_after_ms=wait_ms, gate=Gate("limited"))
        played.provider.play(refused)
        outcome = await played.run(job_for("lone", prompt=f"{wait_ms}"))
        assert isinstance(outcome, Deferred)
        assert deferred_ms <= outcome.wait_ms <= deferred_ms + 5
        assert outcome.ticket
        played.open_gates()
    played.provider.play(fault(Overloaded, retry_after_ms=600_000, gate=Gate("overloaded")))
    outcome = await played.run(job_for("lone", prompt="overloaded"))
    assert isinstance(outcome, Deferred)
    assert outcome.wait_ms >= 600_000, "no gate holds it up"
    assert len(played.provider.asked) == 4
    told = [record.getMessage() for record in caplog.records if record.name == "headgate.limits"]
    causes = [words for words in told if "HTTP" in words]
    assert len(causes) == 2, "each kind is told once a minute"
    assert "a limit is reached there, so no call goes to it for a moment" in causes[0]
    assert "it is overloaded: fewer calls go to it at once" in causes[1]


async def test_a_retry_after_beyond_the_deadline_leaves_the_model(played: PlayedPipeline) -> None:
    played.provider.play(fault(RateLimited, retry_after_ms=60_000))
    result = await played.result(job_for(deadline_s=20))
    assert (result.status, result.model_used, result.fallback) == ("succeeded", "beta", True)


async def test_a_spent_model_is_followed_by_the_next_of_the_chain(played: PlayedPipeline) -> None:
    played.provider.play(*(fault(ProviderFault) for _ in range(3)))
    job = job_for()
    result = await played.result(job)
    assert (result.status, result.model, result.model_used) == ("succeeded", "alpha", "beta")
    assert result.fallback
    assert [asked.model for asked in played.provider.asked] == ["alpha"] * 3 + ["beta"]
    assert played.audited(job).fallback


async def test_an_answer_of_a_fallback_is_kept_under_its_own_name_and_shared_for_a_moment(
    played: PlayedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WINDOW_S", 60)  # a moment also on a slow machine
    played.provider.play(*(fault(ProviderFault) for _ in range(3)))
    await played.result(job_for())
    shared = await played.result(job_for())
    assert (shared.cached, shared.model_used, shared.fallback) == ("shared", "beta", True)
    assert (await played.result(job_for(share=False))).model_used == "alpha"
    assert (await played.result(job_for("beta"))).cached == "exact"


async def test_a_job_that_exhausts_all_models_fails_with_every_attempt_listed(
    played: PlayedPipeline,
) -> None:
    played.provider.play(*(fault(ProviderFault, f"no {n}", http_status=500) for n in range(9)))
    job = job_for()
    result = await played.result(job)
    assert (result.status, result.attempts, result.cost_usd) == ("failed", 4, "0")
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("provider_error", True)
    told = [(a.model, a.code, a.message, a.http_status) for a in result.error.attempts]
    assert told == [
        ("alpha", "provider_error", "no 0", 500),
        ("alpha", "provider_error", "no 1", 500),
        ("alpha", "provider_error", "no 2", 500),
        ("beta", "provider_error", "no 3", 500),
    ]
    assert played.audited(job).error_code == "provider_error"
    found = played.celery(job)
    assert found.state == "FAILURE"
    with pytest.raises(JobFailed) as raised:
        found.get(timeout=5)
    assert (raised.value.code, raised.value.job_id) == ("provider_error", job.id)
    assert len(raised.value.error["attempts"]) == 4


async def test_without_fallback_a_spent_model_is_the_end(played: PlayedPipeline) -> None:
    played.provider.play(*(fault(ProviderFault) for _ in range(3)))
    result = await played.result(job_for(fallback=False))
    assert (result.status, result.attempts) == ("failed", 3)


async def test_a_request_may_name_its_own_chain(played: PlayedPipeline) -> None:
    played.provider.play(fault(QuotaExhausted))
    result = await played.result(job_for(fallback=["lone"]))
    assert (result.status, result.model_used) == ("succeeded", "lone")


async def test_a_chain_may_end_in_a_fixed_answer(played: PlayedPipeline) -> None:
    played.provider.play(fault(QuotaExhausted), fault(QuotaExhausted))
    job = job_for("polite")
    result = await played.result(job)
    assert (result.status, result.content) == ("succeeded", "Please ask again later.")
    assert result.message is None, "no vendor sent one"
    assert (result.model_used, result.provider, result.fallback) == ("static", None, True)
    assert (result.cost_usd, result.attempts, result.usage) == ("0", 2, Usage())
    played.open_gates()
    assert (await played.result(job_for("polite"))).content == "four", "it is not kept"


async def test_the_fixed_answer_is_given_also_when_the_tries_of_the_job_are_spent(
    played: PlayedPipeline,
) -> None:
    played.provider.play(*(fault(ProviderFault) for _ in range(9)))
    result = await played.result(job_for("polite"))
    assert (result.status, result.model_used, result.attempts) == ("succeeded", "static", 4)


async def test_an_answer_that_is_too_large_is_asked_for_once_and_its_cost_is_unknown(
    played: PlayedPipeline,
) -> None:
    played.provider.play(fault(ResponseTooLarge, billed=None))
    job = job_for("alpha")
    result = await played.result(job)
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "response_too_large")
    assert not result.error.retryable
    assert played.attempts(job) == [("alpha", "unknown", "response_too_large")]
    assert played.audited(job).unknown_attempts == 1


async def test_an_answer_that_was_too_large_is_not_asked_for_again_after_a_crash(
    played: PlayedPipeline,
) -> None:
    job = job_for("alpha")
    await played.crash(job, "alpha")
    with played.engine.begin() as connection:
        connection.execute(
            update(attempts)
            .where(attempts.c.job_id == job.id)
            .values(state="unknown", code="response_too_large", message="no", settled_at_ms=1)
        )
    result = await played.result(job)
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "response_too_large")
    assert played.provider.asked == []


async def test_a_fixed_answer_takes_the_place_of_one_that_is_too_large(
    played: PlayedPipeline,
) -> None:
    played.provider.play(fault(ResponseTooLarge, billed=None))
    result = await played.result(job_for("polite"))
    assert (result.status, result.model_used, result.attempts) == ("succeeded", "static", 1)


@pytest.mark.parametrize(
    ("kind", "code"), [(RequestRefused, "content_filtered"), (RequestRefused, "invalid_request")]
)
async def test_a_refused_request_is_neither_repeated_nor_sent_elsewhere(
    played: PlayedPipeline, kind: type[RequestRefused], code: str
) -> None:
    played.provider.play(fault(kind, "refused", code=code, http_status=400))
    result = await played.result(job_for("polite"))
    assert (result.status, result.attempts) == ("failed", 1)
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == (code, False)


@pytest.mark.parametrize("kind", [QuotaExhausted, Unauthorized])
async def test_money_and_keys_are_no_reason_to_repeat_but_to_ask_another_model(
    played: PlayedPipeline, kind: type[QuotaExhausted | Unauthorized]
) -> None:
    played.provider.play(fault(kind, http_status=429), fault(kind, http_status=429))
    result = await played.result(job_for())
    assert [asked.model for asked in played.provider.asked] == ["alpha", "beta"]
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == (kind.code, False)


async def test_without_a_key_the_variable_is_named_and_nothing_is_sent(
    played: PlayedPipeline,
) -> None:
    played.keyless = True
    job = envelope(on_model="alpha", model="alpha")
    result = await played.result(job)
    assert (result.status, result.attempts, played.attempts(job)) == ("failed", 0, [])
    assert result.error is not None
    assert result.error.code == "authentication"
    assert "CUSTOM_API_KEY" in result.error.message


async def test_a_fallback_without_a_key_leaves_a_busy_model_to_be_waited_for(
    played: PlayedPipeline,
) -> None:
    played.keyless = True
    outcome = await played.run(job_for(), grant=Elsewhere("alpha"))
    assert isinstance(outcome, Deferred)
    ticket = Ticket.decode(outcome.ticket)
    assert (ticket.model, ticket.replaceable, outcome.wait_ms) == ("alpha", False, 0)


async def test_a_job_past_its_deadline_expires_unasked(played: PlayedPipeline) -> None:
    job = job_for(deadline_s=1, submitted_at_ms=now_ms() - 1500)
    result = await played.result(job)
    assert (result.status, played.provider.asked) == ("expired", [])
    assert result.error is not None
    assert result.error.code == "deadline"
    assert played.celery(job).state == "FAILURE"


async def test_a_deadline_between_attempts_ends_the_job(
    database_url: str, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """The clock is the test's: the job's minute passes while the first attempt is under way."""
    played: PlayedPipeline

    def clock_ms() -> int:
        return now_ms() + (61_000 if played.provider.asked else 0)

    async with played_pipeline(database_url, valkey.url, tmp_path, clock_ms=clock_ms) as played:
        played.provider.play(fault(ProviderFault))
        result = await played.result(job_for(deadline_s=60))
        assert (result.status, len(played.provider.asked)) == ("expired", 1)
        assert result.error is not None
        assert [a.code for a in result.error.attempts] == ["provider_error"]


async def test_a_pool_without_room_defers_the_job_and_counts_no_attempt(
    played: PlayedPipeline,
) -> None:
    assert (await played.result(job_for("narrow"))).status == "succeeded"
    job = job_for("narrow", prompt="another")
    outcome = await played.run(job)
    assert isinstance(outcome, Deferred)
    assert Ticket.decode(outcome.ticket).pool == "custom/narrow"
    assert (played.row(job).status, played.attempts(job)) == ("deferred", [])


async def test_a_prompt_over_the_window_is_refused_before_any_call(played: PlayedPipeline) -> None:
    result = await played.result(job_for(prompt="many words " * 2000))
    assert (result.status, played.provider.asked) == ("failed", [])
    assert result.error is not None
    assert result.error.code == "context_length"


async def test_a_model_that_left_the_catalog_is_named(played: PlayedPipeline) -> None:
    result = await played.result(job_for("gone"))
    assert result.status == "failed"
    assert result.error is not None
    assert result.error.code == "unknown_model"
    assert "gone" in result.error.message


async def test_a_refused_request_of_a_stock_producer_ends_with_its_fault(
    played: PlayedPipeline,
) -> None:
    refusal = InvalidRequest("prompts", 7, "unknown field")
    result = await played.result(job_for(), refusal=refusal)
    assert (result.status, played.provider.asked) == ("failed", [])
    assert result.error is not None
    assert result.error.code == "invalid_request"
    assert "prompts" in result.error.message


async def test_a_repeated_message_ends_nothing_twice_and_publishes_again(
    played: PlayedPipeline, valkey: ValkeyServer
) -> None:
    job = job_for()
    result = await played.result(job)
    with valkey.client() as client:
        client.flushall()
    assert isinstance(await played.run(job), AlreadyTaken)
    assert len(played.provider.asked) == 1
    assert played.celery(job).get(timeout=5) == result.as_json()
    assert len(played.rows(audit, job)) == 1


async def test_a_revoked_job_ends_as_cancelled(played: PlayedPipeline) -> None:
    job = job_for()
    result = await played.result(job, revoked=True)
    assert (result.status, played.provider.asked) == ("cancelled", [])
    found = played.celery(job)
    assert str(found.state) == "REVOKED"
    with pytest.raises(TaskRevokedError):
        found.get(timeout=5)


async def test_an_answer_without_usage_has_no_price(played: PlayedPipeline) -> None:
    played.provider.play(answer(usage=Usage(), counted=False))
    job = job_for()
    result = await played.result(job)
    assert (result.status, result.cost_usd) == ("succeeded", None)
    assert played.audited(job).cost_pico_usd is None


async def test_an_answer_after_a_failure_of_unknown_bill_counts_that_failure(
    played: PlayedPipeline,
) -> None:
    played.provider.play(fault(AttemptTimeout, billed=None))
    job = job_for()
    await played.result(job)
    assert played.attempts(job)[0] == ("alpha", "unknown", "timeout")
    audited = played.audited(job)
    assert (audited.unknown_attempts, audited.attempts) == (1, 2)


async def test_tokens_of_anthropic_are_settled_at_what_was_used(
    played: PlayedPipeline, valkey: ValkeyServer
) -> None:
    job = job_for("claude")
    with valkey.client() as client:
        client.hset(Keys().owners(), job.id, "w")  # a hold is its lease's, and ends with it
        await played.result(job)
        bucket = Keys().bucket("pool/anthropic/claude", "key0")
        taken = {m: client.hget(bucket, f"{m}.total") for m in ("input_tpm", "output_tpm")}
        assert not client.hlen(Keys().holds())
    assert {m: float(str(total)) for m, total in taken.items()} == {
        "input_tpm": 10.0, "output_tpm": 20.0,
    }  # fmt: skip


@pytest.mark.parametrize("limit", [1, 2])
async def test_limits_of_the_settings_bind(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path, limit: int
) -> None:
    limits = RetryLimits(limit, 10, 1, 1)
    async with played_pipeline(sqlite_url, valkey.url, tmp_path, limits=limits) as played:
        played.provider.play(*(fault(ProviderFault) for _ in range(9)))
        assert (await played.result(job_for())).attempts == 2 * limit


async def test_a_result_that_redis_might_refuse_is_in_the_database_only(
    played: PlayedPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    publish = Publish(played.batcher, Keys(), ttl_s=60, bounds=MemoryBounds(), most_bytes=3 * MB)
    played.pipeline = replace(played.pipeline, publish=publish)
    played.provider.play(answer("x" * MB), answer("x" * 3 * MB))
    small, large = job_for(prompt="small"), job_for(prompt="large")
    await played.result(small)
    await played.result(large)
    assert (played.celery(small).state, played.celery(large).state) == ("SUCCESS", "PENDING")
    assert played.row(large).status == "succeeded"
    assert len(decode_result(played.row(large).result).content or "") == 3 * MB
    assert "in the database only" in caplog.text
