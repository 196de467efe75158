"""How much a model shall reason, in the form of either vendor."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.shared.job.request import Request
from headgate.workers.providers.anthropic_request import messages_body
from headgate.workers.providers.reasoning import effort_at_openai

ADAPTIVE = {"type": "adaptive"}
OFF = {"type": "disabled"}


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


@pytest.mark.parametrize(
    ("params", "model", "effort"),
    [
        ({}, "gpt-5.4", None),
        ({"thinking": ADAPTIVE}, "gpt-5.4", "medium"),
        ({"thinking": budget(1024)}, "gpt-5.4", "low"),
        ({"thinking": budget(8192)}, "gpt-5.4", "medium"),
        ({"thinking": budget(16_384)}, "o3", "high"),
        ({"thinking": ADAPTIVE, "output_config": {"effort": "low"}}, "gpt-5.4", "low"),
        ({"output_config": {"effort": "xhigh"}}, "gpt-5.4", "xhigh"),
        ({"output_config": {"effort": "max"}}, "gpt-6-sol", "xhigh"),
        ({"output_config": {"effort": "max"}}, "gpt-5-mini", "high"),
        ({"output_config": {"effort": "xhigh"}}, "o4-mini", "high"),
        ({"thinking": OFF, "output_config": {"effort": "high"}}, "gpt-5.4", "none"),
        ({"thinking": OFF}, "gpt-5.1", "none"),
        ({"thinking": OFF}, "gpt-5", "minimal"),
        ({"thinking": OFF}, "o3", "low"),
        ({"thinking": ADAPTIVE}, "openai/gpt-5.4", "medium"),
        ({"thinking": ADAPTIVE}, "gpt-4o", None),
        ({"thinking": ADAPTIVE}, "gpt-5.1-chat-latest", None),
        ({"thinking": ADAPTIVE}, "deepseek-v4-pro", None),
        ({"output_config": {"effort": "max"}}, "gemini-2.5-pro", "high"),
        ({"thinking": OFF}, "gemini-3.1-pro-preview", None),
    ],
)
def test_thinking_becomes_an_effort_that_the_model_has(
    params: dict[str, Any], model: str, effort: str | None
) -> None:
    assert effort_at_openai(params, model, has_tools=False) == effort


@pytest.mark.parametrize(
    ("model", "effort"),
    [("gpt-5.2", "none"), ("gpt-5.6-luna", "none"), ("gpt-6-sol", "none"), ("gpt-5.1", "high"),
     ("gpt-5", "high"), ("o3", "high"), ("gemini-2.5-pro", "high"), ("gpt-4o", None)],
)  # fmt: skip
def test_newer_models_of_openai_do_not_reason_with_tools(model: str, effort: str | None) -> None:
    params = {"output_config": {"effort": "high"}}
    assert effort_at_openai(params, model, has_tools=True) == effort
    unasked = effort_at_openai({}, model, has_tools=True)
    assert unasked == ("none" if effort == "none" else None)


TOOL = {"type": "function", "function": {"name": "f"}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
AMID: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "1"},
]


def at_claude(
    effort: str | None, model: str, messages: list[dict[str, Any]] | None = None, **params: Any
) -> dict[str, Any]:
    request = Request(
        messages=messages or [{"role": "user", "content": "Hi"}],
        params={"reasoning_effort": effort, **params},
    )
    body = messages_body(request, model, 64_000)
    return {name: body[name] for name in ("thinking", "output_config") if name in body}


@pytest.mark.parametrize(
    ("effort", "model", "sent"),
    [
        ("none", "claude-opus-5", {}),
        (None, "claude-opus-5", {}),
        ("low", "claude-haiku-4-5", {"thinking": budget(2048)}),
        ("minimal", "claude-haiku-4-5", {"thinking": budget(1024)}),
        ("max", "claude-haiku-4-5-20251001", {"thinking": budget(63_999)}),
        ("medium", "claude-3-7-sonnet-20250219", {"thinking": budget(8192)}),
        ("medium", "claude-3-5-haiku-20241022", {}),
        ("high", "other-model", {"thinking": budget(16_384)}),
        ("high", "claude-sonnet-4-6", {"thinking": ADAPTIVE, "output_config": {"effort": "high"}}),
        ("xhigh", "claude-opus-4-6", {"thinking": ADAPTIVE, "output_config": {"effort": "high"}}),
        ("xhigh", "claude-opus-4-7", {"thinking": ADAPTIVE, "output_config": {"effort": "xhigh"}}),
        ("max", "claude-opus-5-5", {"thinking": ADAPTIVE, "output_config": {"effort": "max"}}),
        ("minimal", "claude-sonnet-5", {"output_config": {"effort": "low"}}),
        ("low", "claude-mythos-x", {"thinking": ADAPTIVE, "output_config": {"effort": "low"}}),
    ],
)  # fmt: skip
def test_an_effort_becomes_thinking_of_the_kind_that_the_model_has(
    effort: str, model: str, sent: dict[str, Any]
) -> None:
    assert at_claude(effort, model) == sent


def test_claude_does_not_think_where_it_refuses_to() -> None:
    forced: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required"}
    assert at_claude("high", "claude-haiku-4-5", **forced) == {}
    assert at_claude("high", "claude-opus-5", **forced) == {"output_config": {"effort": "high"}}
    assert at_claude("high", "claude-haiku-4-5", AMID, tools=[TOOL]) == {}
    assert at_claude("high", "claude-opus-5", AMID, tools=[TOOL])["thinking"] == ADAPTIVE
    assert at_claude("high", "claude-haiku-4-5", max_tokens=1024) == {}
    assert at_claude("high", "claude-haiku-4-5", max_tokens=1025) == {"thinking": budget(1024)}


def test_the_callers_own_thinking_wins() -> None:
    own: dict[str, Any] = {
        "thinking": budget(4096),
        "output_config": {"effort": "low", "format": None},
    }
    assert at_claude("high", "claude-haiku-4-5", **own)["thinking"] == budget(4096)
    assert at_claude("high", "claude-opus-5", **own) == own
