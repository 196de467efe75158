"""Ids of responses and of their items. They are made of the job's id, so all gateways agree."""

from __future__ import annotations

import re

RESPONSE = "resp_"

_RESPONSE_ID = re.compile(
    r"resp_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})"
)

_PREFIXES = {
    "message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc",
    "function_call_output": "fco", "custom_tool_call_output": "ctco",
}  # fmt: skip


def response_id(job_id: str) -> str:
    """Return the id of the response that a job makes."""
    return f"{RESPONSE}{_digits(job_id)}"


def job_of(given: str) -> str | None:
    """Return the job of a response's id; None if it is none of ours."""
    found = _RESPONSE_ID.fullmatch(given)
    return "-".join(found.groups()) if found else None


def item_id(kind: str, job_id: str, n: int) -> str:
    """Return the id of an item. `n`: its place among the items of its kind."""
    return f"{_PREFIXES.get(kind, 'item')}_{_digits(job_id)}{n:02d}"


def _digits(job_id: str) -> str:
    return job_id.replace("-", "")
