"""Defaults fill in what a request leaves out, and never change what it says."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.producer.submit.defaults import with_defaults

SYSTEM = {"role": "system", "content": "Be short."}
USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("fields", "defaults", "expected"),
    [
        ({"prompt": "hi"}, {"model": "a"}, {"prompt": "hi", "model": "a"}),
        ({"prompt": "hi", "model": "b"}, {"model": "a"}, {"prompt": "hi", "model": "b"}),
        (
            {"params": {"seed": 1}, "metadata": {"k": 1}},
            {"params": {"seed": 2, "stop": "x"}, "metadata": {"k": 2, "run": 7}},
            {"params": {"seed": 1, "stop": "x"}, "metadata": {"k": 1, "run": 7}},
        ),
        ({"cache": {"mode": "off"}}, {"cache": {"mode": "exact", "ttl_s": 5}},
         {"cache": {"mode": "off", "ttl_s": 5}}),
        ({}, {"max_tokens": 5}, {"params": {"max_tokens": 5}}),
        ({"params": {"max_completion_tokens": 9}}, {"max_tokens": 5},
         {"params": {"max_completion_tokens": 9}}),
        ({"params": {"max_completion_tokens": 9}}, {"params": {"max_tokens": 5}},
         {"params": {"max_completion_tokens": 9}}),
        ({"input": "x"}, {"max_tokens": 5, "params": {"stop": "y"}}, {"input": "x"}),
        ({"params": "wrong"}, {"params": {"stop": "y"}}, {"params": "wrong"}),
    ],
)  # fmt: skip
def test_what_is_left_out_is_filled_in(
    fields: dict[str, Any], defaults: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = dict(fields)
    assert with_defaults(fields, defaults) == expected
    assert fields == before


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "hi"}, {"messages": [SYSTEM, USER]}),
        ({"messages": [USER]}, {"messages": [SYSTEM, USER]}),
        ({"messages": [{"role": "developer", "content": "x"}, USER]}, None),
        ({"messages": [{"role": "system", "content": "x"}, USER]}, None),
        ({"template": "t"}, None),
        ({"input": "x"}, None),
        ({"prompt": ""}, None),
        ({"prompt": "hi", "messages": [USER]}, None),
    ],
)
def test_a_system_message_goes_in_front_of_requests_without_one(
    fields: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    found = with_defaults(fields, {"system": "Be short."})
    if expected is None and "prompt" not in fields:
        assert found == fields
    elif expected is not None:
        assert found == expected
    else:  # it stays as wrong as it was
        assert found["prompt"] == fields["prompt"]


def test_the_system_prompt_of_anthropics_form_is_a_param() -> None:
    form = {"dialect": "anthropic", "messages": [USER]}
    found = with_defaults(form, {"system": "Be short.", "max_tokens": 5})
    assert found == {**form, "params": {"system": "Be short.", "max_tokens": 5}}
    own = {**form, "params": {"system": "Be long."}}
    assert with_defaults(own, {"system": "Be short."}) == own
