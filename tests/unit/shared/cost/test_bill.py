"""A usage that cannot be true is recorded as reported, and counts as its upper bound."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.shared.catalog.catalog import load
from headgate.shared.cost.bill import AnswerBill, bill_of, counted_in
from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.cost.upper_bound import input_bound, upper_bound_pico_usd
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Usage

CATALOG = load()
MINI = CATALOG.model("gpt-4o-mini")
HI = Request(prompt="x" * 100)
ABSURD = 10**12


def bill(
    usage: Usage, request: Request = HI, *, model: str = "gpt-4o-mini", content: str = "four",
    terms: BillingTerms = PLAIN,
) -> AnswerBill:  # fmt: skip
    reply = Reply(content, "stop", usage)
    return bill_of(reply, terms, request, CATALOG.model(model), CATALOG)


@pytest.mark.parametrize(
    ("usage", "request_", "content"),
    [
        (Usage(30, output_tokens=5), HI, "four"),
        # Twice the catalog's figures: the catalog may be outdated.
        (Usage(2 * 128_000, output_tokens=2 * 16_384), HI, "four"),
        # More than that, but what was sent and received can hold it.
        (Usage(900_000, output_tokens=5), Request(prompt="x" * 1_000_000), "four"),
        (Usage(30, output_tokens=40_000), HI, "x" * 50_000),
        # Three answers, and a file by its address.
        (Usage(30, output_tokens=6 * 16_384), Request(prompt="x", params={"n": 3}), "four"),
        (
            Usage(3 * 128_000),
            Request(messages=[{"role": "user", "content": [{"type": "file", "file": {}}] * 3}]),
            "four",
        ),
    ],
)
def test_a_usage_that_can_be_true_counts_as_reported(
    usage: Usage, request_: Request, content: str
) -> None:
    found = bill(usage, request_, content=content)
    assert (found.counted, found.note) == (usage, None)
    assert found.counted_pico_usd == found.cost_pico_usd


def test_more_tokens_than_the_request_can_hold_count_as_its_upper_bound() -> None:
    found = bill(Usage(ABSURD, 10**11, output_tokens=5))
    bound = input_bound(HI, MINI)
    assert bound < 200
    assert found.counted == Usage(bound, bound, output_tokens=5)
    assert found.cost_pico_usd is not None
    assert found.cost_pico_usd > 100_000 * 10**12
    upper_bound = upper_bound_pico_usd(HI, MINI, CATALOG)
    assert upper_bound is not None
    assert found.counted_pico_usd is not None
    assert 0 < found.counted_pico_usd <= upper_bound
    assert "1000000000000 input tokens, and the request holds at most 172" in str(found.note)
    assert counted_in(found.note) == found.counted_pico_usd


@pytest.mark.parametrize("params", [{}, {"max_tokens": 50}, {"max_tokens": 50, "n": 4}])
def test_a_longer_answer_than_there_can_be_counts_as_its_upper_bound(
    params: dict[str, Any],
) -> None:
    found = bill(Usage(30, 0, 0, ABSURD, 10**11), Request(prompt="x", params=params))
    bound = params.get("max_tokens", 16_384) * params.get("n", 1)
    assert found.counted == Usage(30, 0, 0, bound, bound)
    assert found.note is not None
    assert f"an answer has at most {bound}" in found.note


def test_a_vendor_that_runs_tools_counts_its_prompt_in_each_turn() -> None:
    searching = Request(prompt="x", params={"tools": [{"type": "web_search_20250305"}]})
    turns = bill(Usage(2_000_000), searching, model="claude-sonnet-5")
    assert turns.note is None
    absurd = bill(Usage(ABSURD), searching, model="claude-sonnet-5")
    assert absurd.note is not None
    assert absurd.counted.input_tokens < 10**9


def test_searches_nobody_made_do_not_count() -> None:
    found = bill(Usage(30), model="claude-sonnet-5", terms=BillingTerms(searches=2**40))
    assert found.note is not None
    assert "web searches" in found.note
    assert found.counted_pico_usd == bill(Usage(30), model="claude-sonnet-5").cost_pico_usd


def test_a_cost_that_no_column_holds_is_unknown_and_the_bound_counts() -> None:
    found = bill(Usage(2**40), model="gpt-4o", terms=BillingTerms(searches=0))
    most = bill(Usage(2**40, output_tokens=2**40), model="claude-opus-5")
    assert found.cost_pico_usd is not None
    assert most.cost_pico_usd is None
    assert most.counted_pico_usd is not None
    assert counted_in(most.note) == most.counted_pico_usd


def test_an_embedding_has_no_output_and_several_texts_have_a_window_each() -> None:
    texts = Request(input=["x" * 20_000] * 10)
    model = CATALOG.model("text-embedding-3-small")
    assert input_bound(texts, model) == 64 + 10 * model.context_tokens
    assert bill(Usage(80_000), texts, model="text-embedding-3-small").note is None
    found = bill(Usage(ABSURD, output_tokens=7), texts, model="text-embedding-3-small")
    assert found.counted == Usage(input_bound(texts, model), output_tokens=7)


@pytest.mark.parametrize("note", [None, "", "the provider reported 5 input tokens"])
def test_a_note_without_an_amount_counts_nothing(note: str | None) -> None:
    assert counted_in(note) == 0
