"""Translates how much a model shall reason, between the forms of both vendors. Pure.

OpenAI has one param, `reasoning_effort`. Anthropic has `thinking` with a budget for models before
4.6, and `thinking` of the type `adaptive` with `output_config.effort` for newer ones. A wish that
the model cannot fulfil becomes the nearest that it can.

The sources, as of 2026-11: OpenAI's reasoning guide and its refusals in openai-openapi#541 and
litellm#34569; Anthropic's guides to adaptive thinking and to extended thinking.
"""

from __future__ import annotations

import re
from typing import Any

Fields = dict[str, Any]

NONE, MINIMAL, LOW, MEDIUM, HIGH, HIGHER, MOST = (
    "none", "minimal", "low", "medium", "high", "xhigh", "max",
)  # fmt: skip

BUDGETS = {MINIMAL: 1024, LOW: 2048, MEDIUM: 8192, HIGH: 16_384, HIGHER: 32_768, MOST: 65_536}
"""The budget of tokens that stands for each effort at Claude's models before 4.6."""

LEAST_BUDGET = 1024
"""Anthropic refuses smaller budgets."""

NEWEST, BY_BUDGET = (99, 0), (4, 5)

_CHAT_ONLY = re.compile(r"gpt-[\d.]+-chat")
_OPENAIS = re.compile(r"o\d|gpt-(?:[5-9]|\d\d)")
_FIRST = re.compile(r"gpt-5(?![.\d])")  # gpt-5, gpt-5-mini
_FROM_5_2 = re.compile(r"gpt-(?:5\.(?:[2-9]|\d\d)|[6-9]|\d\d)")
_FROM_5_1 = re.compile(r"gpt-(?:5\.\d|[6-9]|\d\d)")
_GOOGLES = re.compile(r"gemini-(?:2\.5|[3-9])")
_CLAUDES = re.compile(r"claude-(?:[a-z]+-)*(\d+)(?:-(\d{1,2}))?(?!\d)")


def bare_name(model: str) -> str:
    """Return the model's name without what a reseller or a fine-tune puts before it."""
    return model.rsplit("/", 1)[-1].removeprefix("ft:")


def is_openais_reasoner(name: str) -> bool:
    """Return whether this is one of the models that refuse `max_tokens` wherever they are served.

    Such as o1, o3-mini, gpt-5.4.
    """
    return _OPENAIS.match(name) is not None


def effort_at_openai(params: Fields, model: str, *, has_tools: bool) -> str | None:
    """Return `reasoning_effort` for params in Anthropic's form; None: leave it out.

    From gpt-5.2 on, chat completions refuse tools together with any effort but `none`, and from
    gpt-5.6 on they need it named.
    """
    name = bare_name(model)
    if _GOOGLES.match(name):
        return _within(_wish(params), {NONE: None, HIGHER: HIGH, MOST: HIGH})
    if not _OPENAIS.match(name) or _CHAT_ONLY.match(name):
        return None
    if _FROM_5_2.match(name):
        return NONE if has_tools else _within(_wish(params), {MOST: HIGHER})
    least = NONE if _FROM_5_1.match(name) else MINIMAL if _FIRST.match(name) else LOW
    return _within(_wish(params), {NONE: least, HIGHER: HIGH, MOST: HIGH})


def _wish(params: Fields) -> str | None:
    """Return the effort that `thinking` and `output_config` ask for; None if neither does."""
    thinking, config = params.get("thinking"), params.get("output_config")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    effort = config.get("effort") if isinstance(config, dict) else None
    if kind == "disabled":
        return NONE
    if isinstance(effort, str):
        return effort
    if kind == "enabled" and isinstance(thinking, dict):
        budget = thinking.get("budget_tokens")
        return _nearest(budget if isinstance(budget, int) else LEAST_BUDGET)
    return MEDIUM if kind == "adaptive" else None


def _nearest(budget: int) -> str:
    """Return the effort of the largest of the three common budgets that this one reaches."""
    return HIGH if budget >= BUDGETS[HIGH] else MEDIUM if budget >= BUDGETS[MEDIUM] else LOW


def _within(wish: str | None, instead: dict[str, str | None]) -> str | None:
    return None if wish is None else instead.get(wish, wish)


def put_thinking(
    params: Fields, model: str, max_tokens: int, *, is_forced: bool, is_amid_tools: bool
) -> None:
    """Put Anthropic's params in the place of `reasoning_effort`; the caller's own win.

    Claude refuses to think if a tool must be called (`is_forced`). With a budget it refuses, too,
    in the middle of a turn with tools whose thinking is not known (`is_amid_tools`).
    """
    effort = params.pop("reasoning_effort", None)
    if effort is None or effort == NONE:
        return
    version = _version(model)
    if version < (3, 7):
        return
    if version < (4, 6):
        budget = min(BUDGETS.get(effort, BUDGETS[MEDIUM]), max_tokens - 1)
        if not is_forced and not is_amid_tools and budget >= LEAST_BUDGET:
            params.setdefault("thinking", {"type": "enabled", "budget_tokens": budget})
        return
    thinks = not is_forced and effort != MINIMAL
    if effort == MINIMAL:
        effort = LOW
    if effort == HIGHER and version == (4, 6):
        effort = HIGH
    if thinks:
        params.setdefault("thinking", {"type": "adaptive"})
    config = params.get("output_config")
    params["output_config"] = {"effort": effort} | (config if isinstance(config, dict) else {})


def _version(model: str) -> tuple[int, int]:
    """Return major and minor version of a Claude model.

    They stand before or after the family: claude-3-7-sonnet-20250219, claude-sonnet-4-6. A Claude
    without them is a new one. Other models of Anthropic's dialect think by a budget.
    """
    name = bare_name(model)
    found = _CLAUDES.match(name)
    if found is None:
        return NEWEST if name.startswith("claude-") else BY_BUDGET
    return int(found[1]), int(found[2] or 0)
