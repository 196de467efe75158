"""The errors of pydantic in our words: field, value, remedy."""

from typing import Any

import pytest

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import request_from

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an empty prompt": ({"prompt": ""}, "prompt: '': must not be empty"),
    "no messages": ({"messages": []}, "messages: []: must not be empty"),
    "a message that is none": ({"messages": [1]}, "messages[0]: 1: give an object"),
    "a number for a text": ({"prompt": "a", "tenant": 1}, "tenant: 1: give a text"),
    "a long key": (
        {"prompt": "a", "idempotency_key": "k" * 256},
        f"idempotency_key: {repr('k' * 256)[:77]}...: give at most 255 characters",
    ),
    "a deadline in the past": (
        {"prompt": "a", "deadline_s": 0}, "deadline_s: 0.0: give a number above 0",
    ),
    "a deadline in years": (
        {"prompt": "a", "deadline_s": 1e9},
        "deadline_s: 1000000000.0: give a number of at most 31536000",
    ),
    "another priority": (
        {"prompt": "a", "priority": "high"},
        "priority: 'high': use 'interactive', 'standard' or 'bulk'",
    ),
    "money": (
        {"prompt": "a", "max_cost_usd": "x"},
        'max_cost_usd: \'x\': give USD as a decimal text such as "0.25", at most 12 decimals',
    ),
    "a field of several types": (
        {"prompt": "a", "fallback": [1]},
        "fallback: [1]: give true, false or a list of model names",
    ),
    "an input of another type": (
        {"input": 1},
        "input: 1: give a text, a list of texts, a list of tokens or a list of token lists",
    ),
    "a variable": (
        {"prompt": "a", "variables": {"n": []}},
        "variables.n: []: give a text, a number, true or false",
    ),
    "variables that are none": ({"prompt": "a", "variables": 1}, "variables: 1: give an object"),
    "an unknown key inside": (
        {"prompt": "a", "cache": {"ttl": 1}}, "cache.ttl: 1: no such field; leave it out",
    ),
    "another mode of the cache": (
        {"prompt": "a", "cache": "none"},
        'cache: \'none\': use "off" or "exact"; "semantic" is not supported yet',
    ),
    "a name with a slip": (
        {"prompt": "a", "modell": "x"}, "modell: 'x': unknown field; did you mean model?",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_an_error_names_the_field_the_value_and_the_remedy(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        request_from(fields)
    assert str(raised.value) == message


def test_the_mode_of_the_cache_stands_for_the_wish() -> None:
    for given, mode in (("off", "off"), ("exact", "exact"), (False, "off"), ({}, None)):
        assert request_from({"prompt": "a", "cache": given}).cache.mode == mode
