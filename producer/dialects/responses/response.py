"""A job as a response of OpenAI's Responses API: waiting, running, or ended in any way."""

from __future__ import annotations

from datetime import datetime

from headgate.producer.dialects.fields import Fields, fields_of, text_of
from headgate.producer.dialects.openai import is_completion, is_message, unix_s
from headgate.producer.dialects.responses.ids import response_id
from headgate.producer.dialects.responses.items import ending_of, is_response, items_of
from headgate.producer.dialects.responses.repeated import repeated, repeated_tools
from headgate.producer.dialects.usage import openai_tier, read_anthropic, read_openai, read_result
from headgate.shared.job.result import Usage

_STATUSES = {
    "queued": "queued", "deferred": "queued", "running": "in_progress", "cancelled": "cancelled",
    "failed": "failed", "expired": "failed",
}  # fmt: skip

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}

_CODES = {
    "rate_limited": "rate_limit_exceeded", "tier_limit": "rate_limit_exceeded",
    "budget_exceeded": "rate_limit_exceeded", "provider_quota": "rate_limit_exceeded",
    "invalid_request": "invalid_prompt", "unknown_model": "invalid_prompt",
    "context_length": "invalid_prompt", "content_filtered": "invalid_prompt",
}  # fmt: skip
"""Our codes as the error of a response has them; all others are `server_error`."""

_OURS = ("id", "object", "background", "previous_response_id", "conversation", "store", "metadata")
"""Fields of a vendor's response in whose place ours stand."""


def head(job_id: str, asked: Fields, status: str = "in_progress") -> Fields:
    """Return a response without an answer. `asked`: model and params of its request."""
    return {
        "id": response_id(job_id),
        "object": "response",
        "created_at": unix_s(job_id),
        "completed_at": None,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": text_of(asked.get("model")),
        "output": [],
        "usage": None,
        **repeated(asked),
    }


def response(result: Fields, asked: Fields) -> Fields:
    """Return the response of a job; `result`: as `Result.as_json()`."""
    begun = head(result["id"], {"model": result["model"], **asked})
    if result["status"] == "succeeded":
        return _answered(begun, result)
    begun["status"] = _STATUSES[result["status"]]
    if begun["status"] == "failed":
        begun["error"] = error_of(fields_of(result.get("error")))
    return begun


def error_of(report: Fields) -> Fields:
    """Return the error of a response; `report`: that of a result."""
    code = text_of(report.get("code")) or "internal"
    message = text_of(report.get("message")) or "the job has not succeeded"
    return {"code": _CODES.get(code, "server_error"), "message": message}


def _answered(begun: Fields, result: Fields) -> Fields:
    sent = fields_of(result.get("message"))
    if is_response(sent):
        ours = {name: begun[name] for name in _OURS}
        return {**begun, **sent, **ours, "tools": repeated_tools(sent.get("tools"))}
    reason = _REASONS.get(ending_of(result))
    tier = sent.get("service_tier") if is_completion(sent) else openai_tier(sent.get("usage"))
    return {
        **begun,
        "status": "incomplete" if reason else "completed",
        "completed_at": _unix_s(result.get("finished_at")),
        "incomplete_details": {"reason": reason} if reason else None,
        "model": text_of(sent.get("model")) or result.get("model_used") or begun["model"],
        "output": items_of(result),
        "service_tier": text_of(tier) or begun["service_tier"],
        "usage": usage_of(_counts(sent, result)),
    }


def _counts(sent: Fields, result: Fields) -> Usage:
    usage = sent.get("usage")
    if usage and is_completion(sent):
        return read_openai(usage)
    if usage and is_message(sent):
        return read_anthropic(usage)
    return read_result(result.get("usage"))


def usage_of(usage: Usage) -> Fields:
    """Return the counts as the usage of a response."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _unix_s(moment: object) -> int | None:
    """Return a time in RFC 3339 as a Unix second; None for none."""
    if not isinstance(moment, str):
        return None
    return int(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp())
