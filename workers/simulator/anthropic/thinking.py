"""Which answers think before they speak, and which requests Anthropic refuses for it.

From its guides to extended and to adaptive thinking. Models before 4.6 think by a budget, those of
4.6 either way, and newer ones only as they see fit.
"""

import re
from typing import Any

from headgate.workers.simulator.request import Invalid, Json

VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d+)(?:-(\d{1,2}))?(?!\d)")
LEAST_BUDGET = 1024
EFFORTS = ("low", "medium", "high", "xhigh", "max")
KINDS = ("enabled", "adaptive", "disabled", "between_tools")


def thinks(body: Json, max_tokens: int) -> bool:
    """Return whether the model thinks; raises Invalid where Anthropic would refuse it."""
    _check_effort(body.get("output_config"))
    thinking = body.get("thinking")
    if thinking is None:
        return False
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in KINDS:
        raise Invalid(f"Input tag {kind!r} does not match any of the expected tags", "thinking")
    if kind == "disabled":
        return False
    _check_model(str(body.get("model")), kind)
    if kind == "enabled":
        _check_budget(thinking, max_tokens)
        _check_last_turn(body["messages"])
    if body.get("temperature") not in (None, 1):
        raise Invalid("`temperature` may only be set to 1 when thinking is enabled.", "temperature")
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("any", "tool"):
        raise Invalid(
            "Thinking may not be enabled when tool_choice forces tool use.", "tool_choice"
        )
    return True


def _check_effort(config: Any) -> None:
    effort = config.get("effort") if isinstance(config, dict) else None
    if effort is not None and effort not in EFFORTS:
        raise Invalid(f"Input should be one of {EFFORTS}", "output_config.effort")


def _check_model(model: str, kind: str) -> None:
    found = VERSION.match(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (4, 6)
    if kind == "enabled" and version > (4, 6):
        raise Invalid(
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" '
            'and "output_config.effort" to control thinking behavior.',
            "thinking",
        )
    if kind == "adaptive" and version < (4, 6):
        raise Invalid("adaptive thinking is not supported on this model", "thinking")


def _check_budget(thinking: Json, max_tokens: int) -> None:
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < LEAST_BUDGET:
        raise Invalid(
            f"Input should be greater than or equal to {LEAST_BUDGET}", "thinking.budget_tokens"
        )
    if budget >= max_tokens:
        raise Invalid("`max_tokens` must be greater than `thinking.budget_tokens`.", "max_tokens")


def _check_last_turn(messages: list[Json]) -> None:
    """Refuse the result of a tool behind a turn that does not begin with its thinking."""
    if len(messages) < 2 or not any(
        _kind(block) == "tool_result" for block in _blocks(messages[-1])
    ):
        return
    asked = _blocks(messages[-2])
    if asked and _kind(asked[0]) not in ("thinking", "redacted_thinking"):
        raise Invalid(
            "Expected `thinking` or `redacted_thinking`, but found "
            f"`{_kind(asked[0])}`. When `thinking` is enabled, a final `assistant` message must "
            "start with a thinking block.",
            f"messages.{len(messages) - 2}.content.0.type",
        )


def _blocks(message: Json) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _kind(block: Any) -> Any:
    return block.get("type") if isinstance(block, dict) else None
