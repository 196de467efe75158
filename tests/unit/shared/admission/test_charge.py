"""Charge: what is held for an attempt, by each vendor's own rule."""

from typing import Any

import pytest

from headgate.shared.admission.charge import Charge, charge
from headgate.shared.job.request import Request, request_from


def request(**params: Any) -> Request:
    return request_from({"prompt": "x", "params": params})


@pytest.mark.parametrize(
    ("params", "held"),
    [
        ({}, 0), ({"max_tokens": 50}, 50), ({"max_completion_tokens": 60}, 60),
        ({"max_tokens": 5000}, 1000),
    ],
)  # fmt: skip
def test_openai_holds_what_may_be_answered_and_gives_nothing_back(
    params: dict[str, Any], held: int
) -> None:
    found = charge("openai", request(**params), input_tokens=7, ceiling=1000)
    assert found == Charge(7, held, settles=False)


@pytest.mark.parametrize("ceiling", [10, 100_000])
def test_anthropic_holds_what_is_learned_up_to_the_ceiling_and_settles(ceiling: int) -> None:
    found = charge("anthropic", request(max_tokens=100_000), input_tokens=7, ceiling=ceiling)
    assert found == Charge(7, ceiling, settles=True)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_an_embedding_holds_its_input_alone(dialect: str) -> None:
    found = charge(dialect, request_from({"input": "x"}), input_tokens=7, ceiling=0)
    assert found == Charge(7, 0, settles=False)
