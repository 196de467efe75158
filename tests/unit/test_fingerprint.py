"""Fingerprint: equal questions and no others have one."""

from typing import Any

import pytest

from shared.envelope import request_from
from shared.policy.fingerprint import fingerprint

BASE: dict[str, Any] = {"prompt": "2 + 2?"}


def of(model: str = "m", **fields: Any) -> str:
    words = {} if fields.keys() & {"prompt", "messages", "input"} else BASE
    return fingerprint(request_from(words | fields), model)


@pytest.mark.parametrize(
    "same",
    [
        {"messages": [{"role": "user", "content": "2 + 2?"}]},
        {"messages": [{"content": "2 + 2?", "role": "user"}]},
        {"user": "u"}, {"priority": "bulk"}, {"metadata": {"a": 1}}, {"deadline_s": 5},
        {"cache": {"mode": "off"}}, {"fallback": False}, {"on_unknown": "fail"},
    ],
    ids=str,
)  # fmt: skip
def test_what_no_model_sees_makes_no_difference(same: dict[str, Any]) -> None:
    assert of(**same) == of()


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "2 + 2? "}, {"tenant": "acme"}, {"model": "another"}, {"input": "2 + 2?"},
        {"params": {"temperature": 0}}, {"params": {"seed": 1}},
        {"messages": [{"role": "system", "content": "2 + 2?"}]},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_the_answer_makes_another_question(other: dict[str, Any]) -> None:
    model = other.get("model", "m")
    assert of(model, **{k: v for k, v in other.items() if k != "model"}) != of()


def test_the_order_of_keys_is_nothing_and_that_of_messages_is() -> None:
    assert of(params={"seed": 1, "top_p": 0.5}) == of(params={"top_p": 0.5, "seed": 1})
    one, two = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert of(messages=[one, two]) != of(messages=[two, one])
