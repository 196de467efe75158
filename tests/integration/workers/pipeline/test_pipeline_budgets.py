"""A job in the pipeline while budgets apply: what it holds, what it spends, how it fails."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headgate.shared.admission.grant import Cheaper, OverBudget
from headgate.shared.admission.ticket import Ticket
from headgate.shared.cost.bill import IMPLAUSIBLE
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.database.tables import attempts
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Usage
from headgate.workers.errors import ProviderFault
from headgate.workers.maintenance.spend import spent_on
from headgate.workers.pipeline.outcome import Deferred
from tests.support.budgets import USD, Treasury
from tests.support.pipeline import (
    COST_PICO_USD,
    PlayedPipeline,
    answer,
    fault,
    job_for,
    played_pipeline,
)
from tests.support.servers import ValkeyServer


class LimitedPipeline:
    """A pipeline whose jobs are leased, and the budgets beside it."""

    def __init__(self, played: PlayedPipeline, treasury: Treasury) -> None:
        self.played = played
        self.treasury = treasury
        treasury.budget({"tenant/default": "usd_per_day=1"})

    def job(self, model: str = "lone", **fields: Any) -> Envelope:
        """Return a job that this worker holds."""
        job = job_for(model, **fields)
        self.treasury.client.hset(self.treasury.keys.owners(), job.id, "w")
        return job

    def worst(self, job: Envelope) -> int:
        """Return the most that one attempt of it can cost."""
        catalog = self.played.pipeline.catalog
        worst = upper_bound_pico_usd(job.request, catalog.model(job.model), catalog)
        assert worst is not None
        return worst


@pytest.fixture
async def here(
    sqlite_url: str, valkey: ValkeyServer, tmp_path: Path
) -> AsyncIterator[LimitedPipeline]:
    with valkey.client(decode_responses=False) as client:
        async with played_pipeline(sqlite_url, valkey.url, tmp_path) as played:
            yield LimitedPipeline(played, Treasury(client))


async def test_what_an_answer_cost_is_spent_and_nothing_is_held_any_more(
    here: LimitedPipeline,
) -> None:
    result = await here.played.result(here.job())
    assert result.status == "succeeded"
    assert here.treasury.book("tenant/default") == (COST_PICO_USD, 0)


async def test_an_absurd_usage_is_on_record_as_reported_and_counts_as_its_upper_bound(
    here: LimitedPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    here.played.provider.play(answer(usage=Usage(10**12, output_tokens=20)))
    job = here.job(prompt="x" * 100)
    result = await here.played.result(job)
    assert (result.status, result.usage.input_tokens) == ("succeeded", 10**12)
    assert result.cost_usd == "1000000.00004"
    assert result.usage_note is not None
    assert "1000000000000 input tokens" in result.usage_note
    assert result.as_json()["usage_note"] == result.usage_note
    assert f"job {job.id}: the usage of custom/lone cannot be true" in caplog.text
    assert "x" * 100 not in caplog.text
    [row] = here.played.rows(attempts, job)
    assert (row.state, row.code, row.message) == ("answered", IMPLAUSIBLE, result.usage_note)
    assert (row.input_tokens, row.cost_pico_usd) == (10**12, 10**18 + 40 * 10**6)
    assert here.played.audited(job).cost_pico_usd == row.cost_pico_usd

    counted = 172 * 10**6 + 20 * 2 * 10**6
    assert here.treasury.book("tenant/default") == (counted, 0)
    # Workers read the ledger again and again: it must not bring back what was reported.
    [today, _] = here.treasury.periods()
    assert spent_on(here.played.engine, today) == {("default", "", ""): counted}
    again = await here.played.result(here.job(prompt="x" * 100))
    assert (again.cached, here.played.audited(job).saved_pico_usd) == ("exact", None)


async def test_what_was_spent_is_known_by_key(here: LimitedPipeline) -> None:
    key_id = "hgk_0123456789ab"
    here.played.provider.play(answer(usage=Usage(100)), answer(usage=Usage(100)))
    for given in ({"key_id": key_id}, {}):
        assert (await here.played.result(here.job(prompt=f"{given}", **given))).cost_usd
    [today, _] = here.treasury.periods()
    spent = spent_on(here.played.engine, today)
    assert spent["default", "", key_id] == spent["default", "", ""] > 0


async def test_absurd_usages_beyond_64_bits_can_be_added_up(here: LimitedPipeline) -> None:
    for n in range(12):
        here.played.provider.play(answer(usage=Usage(10**12)))
        assert (await here.played.result(here.job(prompt=f"{n}"))).usage_note
    [today, _] = here.treasury.periods()
    spent = spent_on(here.played.engine, today)["default", "", ""]
    assert here.treasury.book("tenant/default") == (spent, 0)
    assert spent < 10**9


async def test_buckets_take_the_upper_bound_of_an_absurd_usage(here: LimitedPipeline) -> None:
    here.played.provider.play(answer(usage=Usage(10**12, output_tokens=20)))
    assert (await here.played.result(here.job("claude", prompt="x" * 100))).usage_note
    bucket = here.treasury.bucket("pool/anthropic/claude", "key0")
    assert (bucket["input_tpm.total"], bucket["output_tpm.total"]) == (172, 20)


async def test_a_failure_that_was_not_billed_costs_nothing(here: LimitedPipeline) -> None:
    here.played.provider.play(fault(ProviderFault, billed=False), answer())
    assert (await here.played.result(here.job())).status == "succeeded"
    assert here.treasury.book("tenant/default") == (COST_PICO_USD, 0)


async def test_a_failure_of_which_nobody_knows_counts_at_its_worst_price(
    here: LimitedPipeline,
) -> None:
    here.played.provider.play(fault(ProviderFault, billed=None), answer())
    job = here.job()
    assert (await here.played.result(job)).status == "succeeded"
    assert here.treasury.book("tenant/default") == (here.worst(job) + COST_PICO_USD, 0)


async def test_an_answer_without_a_count_leaves_the_worst_price_spent(
    here: LimitedPipeline,
) -> None:
    here.played.provider.play(answer(counted=False))
    job = here.job()
    assert (await here.played.result(job)).cost_usd is None
    assert here.treasury.book("tenant/default") == (here.worst(job), 0)


async def test_a_job_over_its_budget_is_told_which_one_and_how_much(here: LimitedPipeline) -> None:
    here.treasury.at_least("tenant/default", 2 * USD)
    result = await here.played.result(here.job())
    assert result.error is not None
    assert (result.status, result.error.code) == ("failed", "budget_exceeded")
    assert "budget of tenant/default for" in result.error.message
    assert "(1 USD, hard stop at 1.2)" in result.error.message
    assert "2 are spent and 0 held" in result.error.message
    assert here.played.provider.asked == []


async def test_a_job_whose_price_nobody_told_goes_back_with_it(here: LimitedPipeline) -> None:
    job = here.job()
    grant = OverBudget("lone", "tenant/default", "20261121", USD, USD, 0, 0, None)
    outcome = await here.played.run(job, grant=grant)
    assert isinstance(outcome, Deferred)
    assert Ticket.decode(outcome.ticket).upper_bound_pico_usd == here.worst(job)


async def test_with_a_budget_of_zero_cached_answers_still_come(here: LimitedPipeline) -> None:
    words: dict[str, Any] = {"prompt": "the same", "cache": {"mode": "exact"}}
    await here.played.result(here.job(**words))
    here.treasury.budget({"tenant/default": "usd_per_day=0"})
    grant = OverBudget("lone", "tenant/default", "20261121", 0, 0, 0, 0, 9)
    again = await here.played.result(here.job(**words), grant=grant)
    assert (again.status, again.cached) == ("succeeded", "exact")
    other = await here.played.result(here.job(prompt="another"), grant=grant)
    assert other.error is not None
    assert other.error.code == "budget_exceeded"


async def test_a_job_stays_within_its_own_budget_over_all_its_attempts(
    here: LimitedPipeline,
) -> None:
    job = here.job()
    most = f"{here.worst(job) * 1.5 / USD:.12f}"
    here.played.provider.play(fault(ProviderFault, billed=None))
    result = await here.played.result(here.job(max_cost_usd=most))
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("budget_exceeded", False)
    assert "so far are over max_cost_usd" in result.error.message
    assert len(here.played.provider.asked) == 1


async def test_every_model_of_the_chain_is_asked_for_its_own_price(here: LimitedPipeline) -> None:
    job = here.job("alpha")
    here.played.provider.play(fault(ProviderFault, billed=None))
    result = await here.played.result(
        here.job("alpha", max_cost_usd=f"{here.worst(job) * 1.5 / USD:.12f}")
    )
    assert result.error is not None
    assert [(one.model, one.code) for one in result.error.attempts] == [
        ("alpha", "provider_error"), ("alpha", "budget_exceeded"), ("beta", "budget_exceeded"),
    ]  # fmt: skip


async def test_at_the_soft_share_the_cheap_model_answers_where_the_caller_lets_it(
    here: LimitedPipeline,
) -> None:
    grant = Cheaper("beta")
    result = await here.played.result(here.job(), grant=grant)
    assert (result.status, result.model_used, result.fallback) == ("succeeded", "beta", True)
    outcome = await here.played.run(here.job(prompt="other", fallback=False), grant=grant)
    assert isinstance(outcome, Deferred)
    assert outcome.wait_ms == 60_000


async def test_a_cheap_model_without_a_key_names_the_variable(here: LimitedPipeline) -> None:
    here.played.keyless = True
    result = await here.played.result(here.job(), grant=Cheaper("beta"))
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("authentication", False)
    assert "CUSTOM_API_KEY" in result.error.message
