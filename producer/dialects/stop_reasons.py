"""Why an answer ended, in the terms of either dialect."""

from __future__ import annotations

_AT_OPENAI = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_AT_ANTHROPIC = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def finish_reason(stop_reason: object) -> str:
    """Return OpenAI's reason for one of Anthropic's; `stop` for one that we do not know.

    A reason of OpenAI's is returned as it is.
    """
    reason = str(stop_reason)
    return reason if reason in _AT_ANTHROPIC else _AT_OPENAI.get(reason, "stop")


def stop_reason(finish: object, *, calls: bool, refused: bool) -> str:
    """Return Anthropic's reason for one of OpenAI's; `end_turn` for one that we do not know.

    `calls`: the answer calls tools. OpenAI says `stop` if the caller has named the tool, and some
    servers always do. `refused`: the model has refused to answer. A reason of Anthropic's is
    returned as it is.
    """
    if refused:
        return "refusal"
    reason = str(finish)
    found = reason if reason in _AT_OPENAI else _AT_ANTHROPIC.get(reason, "end_turn")
    return "tool_use" if calls and found == "end_turn" else found
