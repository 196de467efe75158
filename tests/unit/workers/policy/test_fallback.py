"""Fallback: which models a job may ask, and which it has done with."""

from typing import Any

import pytest

from headgate.shared.admission.grant import (
    Cached,
    Elsewhere,
    Grant,
    Held,
    Late,
    ModelDown,
    NoTicket,
)
from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import StaticText
from headgate.shared.errors import ErrorCode
from headgate.shared.job.request import request_from
from headgate.shared.job.result import FailedAttempt
from headgate.workers.policy import fallback
from headgate.workers.policy.retry import RetryLimits

LIMITS = RetryLimits(3, 5, 1, 1)
CATALOG = catalog.load()


def failure(model: str, code: ErrorCode = "provider_error") -> FailedAttempt:
    return FailedAttempt(model, code, "no", 500, 0)


def names(first: str, **fields: Any) -> list[str]:
    words = {"prompt": "x"} if "input" not in fields else {}
    chain = fallback.chain(request_from(words | fields), CATALOG.model(first), CATALOG)
    return ["static" if isinstance(model, StaticText) else model.name for model in chain]


def test_the_wanted_model_is_first_and_the_catalogs_chain_follows() -> None:
    assert names("gpt-4o-mini")[:3] == ["gpt-4o-mini", "gpt-4o", "claude-haiku-4-5"]


def test_a_request_may_want_no_other_model_or_its_own() -> None:
    assert names("gpt-4o-mini", fallback=False) == ["gpt-4o-mini"]
    assert names("gpt-4o-mini", fallback=["gpt-4.1", "gpt-4o-mini"]) == ["gpt-4o-mini", "gpt-4.1"]


def test_vectors_of_another_model_stand_in_for_none() -> None:
    embedding = next(model.name for model in CATALOG.models.values() if model.embeds)
    assert names(embedding, input="x") == [embedding]


def test_tries_are_counted_by_model() -> None:
    failures = [failure("a"), failure("b"), failure("a")]
    assert [fallback.tries(name, failures) for name in "abc"] == [2, 1, 0]


def test_a_model_is_spent_by_its_own_tries_or_by_those_of_the_job() -> None:
    assert not fallback.is_spent("a", [], LIMITS)
    assert not fallback.is_spent("a", [failure("a")] * 2 + [failure("b")] * 2, LIMITS)
    assert fallback.is_spent("a", [failure("a")] * 3, LIMITS)
    assert fallback.is_spent("a", [failure("b")] * 5, LIMITS)


@pytest.mark.parametrize("code", sorted(fallback.FINAL))
def test_a_model_is_spent_by_what_no_repetition_mends(code: ErrorCode) -> None:
    assert fallback.is_spent("a", [failure("a", code)], LIMITS)
    assert not fallback.is_spent("b", [failure("a", code)], LIMITS)


def test_a_job_goes_on_with_the_model_that_failed_last() -> None:
    chain = fallback.chain(request_from({"prompt": "x"}), CATALOG.model("gpt-4o-mini"), CATALOG)
    assert fallback.reached(chain, []) == 0
    assert fallback.reached(chain, [failure("gpt-4o-mini"), failure("gpt-4o")]) == 1
    assert fallback.reached(chain, [failure("a model that left the catalog")]) == 0


@pytest.mark.parametrize(
    ("grant", "place"),
    [
        (NoTicket(), 1),
        (Late(), 1),
        (Cached("gpt-4o-mini"), 1),
        (Held("held", "gpt-4o-mini"), 1),
        (Held("held", "claude-haiku-4-5"), 2),
        (Held("held", "gpt-4o-mini", waits=True), 0),
        (Held("held", "a model of another chain", waits=True), 1),
        (ModelDown("claude-haiku-4-5"), 2),
        (ModelDown("gpt-4o", waits=True), 0),
        (Elsewhere("gpt-4o"), 2),
        (Elsewhere("gpt-4o", waits=True), 0),
        (Elsewhere("a model of another chain"), 1),
    ],
    ids=repr,
)
def test_the_grant_says_where_in_the_chain_a_job_goes_on(grant: Grant, place: int) -> None:
    chain = fallback.chain(request_from({"prompt": "x"}), CATALOG.model("gpt-4o-mini"), CATALOG)
    assert fallback.start(chain, [failure("gpt-4o-mini"), failure("gpt-4o")], grant) == place


@pytest.mark.parametrize("model", ["alpha", "beta"])
def test_an_answer_that_was_too_large_is_the_last_of_its_job_at_all_models(model: str) -> None:
    assert fallback.is_spent(model, [failure("alpha", "response_too_large")], LIMITS)
    assert not fallback.is_spent(model, [failure("alpha", "overloaded")], LIMITS)
