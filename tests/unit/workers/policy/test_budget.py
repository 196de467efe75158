"""What budgets mean for one job: which error it ends with, and which models it may ask."""

import pytest

from headgate.shared.admission.grant import Cheaper, Held, NoTicket, OverBudget
from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens
from headgate.shared.cost.price import usd_text
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.job.request import Request, request_from
from headgate.workers.policy import budget, fallback

CATALOG = catalog.load()
USD = 10**12


def chain(request: Request, grant: Cheaper | Held | NoTicket) -> list[str] | None:
    first = CATALOG.model("gpt-4o")

    def count(model: Model) -> int:
        return tokens.input_tokens(request, model)

    found = budget.chain(request, first, CATALOG, grant, count)
    return None if found is None else [one.name for one in found if isinstance(one, Model)]


def test_the_error_names_the_budget_and_the_amounts() -> None:
    error = budget.over_budget(
        OverBudget("gpt-4o", "tenant/a%2Fb", "20261121", USD, 2 * USD, USD // 2, USD // 4, 3 * USD)
    )
    assert (error.code, error.retryable, error.waiting_helps) == ("budget_exceeded", False, True)
    assert error.message == (
        "the budget of tenant/a/b for 2026-11-21 (1 USD, hard stop at 2) cannot cover up to 3 USD "
        "for gpt-4o: 0.5 are spent and 0.25 held by running jobs"
    )


def test_a_missing_price_is_named_with_its_remedy() -> None:
    error = budget.over_budget(OverBudget("gpt-4o", "global", "202611", USD, USD, 0, 0, None))
    assert error.message == (
        "the budget of global for 2026-11 (1 USD, hard stop at 1) is in force, but the price of "
        'gpt-4o is unknown: add [prices."gpt-4o"] to the catalog'
    )


def test_a_job_over_its_own_budget_is_not_helped_by_waiting() -> None:
    request = request_from({"prompt": "x", "max_cost_usd": "0.000001"})
    error = budget.over_own(request, CATALOG.model("gpt-4o"), CATALOG, 0, [])
    assert error is not None
    assert (error.code, error.waiting_helps) == ("budget_exceeded", False)
    assert "are over max_cost_usd (0.000001)" in error.message


def test_the_part_of_a_broken_answer_counts_once_against_the_own_budget() -> None:
    model = CATALOG.model("gpt-4o")
    bound = upper_bound_pico_usd(request_from({"prompt": "x"}), model, CATALOG)
    assert bound is not None
    request = request_from({"prompt": "x", "max_cost_usd": usd_text(2 * bound)})
    part = bound // 3
    assert budget.over_own(request, model, CATALOG, part, ["gpt-4o"], part) is None
    assert budget.over_own(request, model, CATALOG, part + 1, ["gpt-4o"], part) is not None


def test_without_a_word_of_a_budget_the_chain_is_that_of_the_request() -> None:
    request = request_from({"prompt": "x"})
    wanted = fallback.chain(request, CATALOG.model("gpt-4o"), CATALOG)
    assert chain(request, NoTicket()) == [one.name for one in wanted if isinstance(one, Model)]


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({}, ["gpt-4o-mini"]),
        ({"params": {"tools": [{"type": "function"}]}}, ["gpt-4o-mini"]),
        ({"fallback": False}, None),
        ({"prompt": "x " * 900_000}, None),
    ],
    ids=["it can", "tools", "no other model wanted", "too long"],
)
def test_the_cheaper_model_answers_if_it_can_and_the_caller_lets_it(
    fields: dict[str, object], models: list[str] | None
) -> None:
    request = request_from({"prompt": "x"} | fields)
    assert chain(request, Cheaper("gpt-4o-mini")) == models


def test_a_cheaper_model_that_left_the_catalog_lets_the_job_wait() -> None:
    assert chain(request_from({"prompt": "x"}), Cheaper("gone")) is None
