"""A request in Anthropic's form: what is checked of it, and how its blocks are read."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.blocks import all_blocks, texts_in
from headgate.shared.job.request import Request, request_from

HI = [{"role": "user", "content": "Hi"}]


def form(**fields: Any) -> Request:
    return request_from({"dialect": "anthropic", "messages": HI, **fields})


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 0},
        {"temperature": 1, "top_p": 0, "top_k": 0},
        {"anthropic_beta": ["context-1m-2025-08-07", "a.b:c_d"]},
        {"anthropic_beta": None},
        {"brand_new": {"a": [None]}, "system": [{"type": "text", "text": "s"}]},
    ],
)
def test_what_anthropic_takes_is_taken(params: dict[str, Any]) -> None:
    assert form(params=params).params == params


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"params": {"temperature": 1.5}}, "params.temperature"),
        ({"params": {"max_tokens": -1}}, "params.max_tokens"),
        ({"params": {"max_tokens": "9"}}, "params.max_tokens"),
        ({"params": {"betas": ["a"]}}, "params.betas"),
        ({"params": {"anthropic_beta": "a"}}, "params.anthropic_beta"),
        ({"params": {"anthropic_beta": ["a\r\nx-api-key: k"]}}, "params.anthropic_beta"),
        ({"params": {"stream": True}}, "params.stream"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content"),
        ({"messages": None, "input": "x"}, "dialect"),
        ({"messages": None, "template": "t"}, "dialect"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        form(**fields)
    assert caught.value.field == field


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_each_role_of_anthropic_may_have_a_text_or_blocks(role: str) -> None:
    for content in ("x", [{"type": "text", "text": "x"}], [{"type": "brand_new"}]):
        assert form(messages=[{"role": role, "content": content}]).messages


def test_blocks_and_texts_are_found_to_any_depth() -> None:
    source = {"type": "content", "content": [{"type": "text", "text": "c"}]}
    result = [{"type": "text", "text": "b"}, {"type": "document", "source": source}]
    content: list[dict[str, Any]] = [
        {"type": "text", "text": "a"},
        {"type": "tool_result", "tool_use_id": "t", "content": result},
        {"type": "tool_result", "tool_use_id": "u", "content": "d"},
        {"type": "document", "source": {"type": "text", "data": "e"}},
        {"type": "document", "source": {"type": "base64", "data": "no text"}},
    ]
    messages: list[dict[str, Any]] = [*HI, {"role": "user", "content": content}]
    assert sum(block["type"] == "text" for block in all_blocks(messages)) == 3
    assert sorted(texts_in(content)) == ["a", "b", "c", "d", "e"]
    assert list(texts_in("x")) == ["x"]
    assert list(texts_in(None)) == []
