"""What of a request in the form of Responses the vendor has on record. Pure."""

from __future__ import annotations

from headgate.shared.job.request import Request
from headgate.shared.responses.chat_form import is_function

ON_RECORD = ("conversation", "previous_response_id", "prompt")
"""Params that name what the vendor has on record: it becomes a part of the prompt."""


def changes_state(request: Request) -> bool:
    """Return whether the answer is added to a conversation: another call is another answer."""
    return request.dialect == "responses" and bool(request.params.get("conversation"))


def has_hidden_input(request: Request) -> bool:
    """Return whether the vendor adds to the prompt what it has on record."""
    if request.dialect != "responses":
        return False
    if any(request.params.get(name) for name in ON_RECORD):
        return True
    items = request.input if isinstance(request.input, list) else []
    return any(isinstance(item, dict) and item.get("type") == "item_reference" for item in items)


def depends_on_state(request: Request) -> bool:
    """Return whether the answer depends on more than the request.

    That is what the vendor has on record, or what tools find that the vendor runs.
    """
    if request.dialect != "responses":
        return False
    tools = request.params.get("tools")
    runs_tools = isinstance(tools, list) and not all(map(_is_callers, tools))
    return runs_tools or has_hidden_input(request)


def _is_callers(tool: object) -> bool:
    return is_function(tool) or (isinstance(tool, dict) and tool.get("type") == "custom")
