"""Counts of tokens in the two dialects, each from the other's and from a result's.

OpenAI's `prompt_tokens` counts all input. Anthropic's `input_tokens` leaves out what was read from
its cache and what was written to it. Both count reasoning as output.
"""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, count, fields_of
from headgate.shared.job.result import Usage

_TIERS_AT_OPENAI = {"standard": "default", "priority": "priority"}
_TIERS_AT_ANTHROPIC = {"default": "standard", "priority": "priority"}


def openai_usage(usage: Usage) -> Fields:
    """Return the counts as the usage of a chat completion."""
    given = {"cached_tokens": usage.cached_input_tokens}
    if usage.cache_write_tokens:
        given["cache_write_tokens"] = usage.cache_write_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": given,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def anthropic_usage(usage: Usage, service_tier: object = None) -> Fields:
    """Return the counts as the usage of a message; `service_tier` is OpenAI's."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "input_tokens": max(usage.input_tokens - cached - written, 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "cache_creation": None,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
        "service_tier": _TIERS_AT_ANTHROPIC.get(str(service_tier)),
        "inference_geo": None,
    }


def openai_tier(usage: object) -> str | None:
    """Return OpenAI's name of the service tier in a usage of Anthropic's."""
    return _TIERS_AT_OPENAI.get(str(fields_of(usage).get("service_tier")))


def read_openai(usage: object) -> Usage:
    """Return the counts of a chat completion's usage.

    Google and xAI leave reasoning out of `completion_tokens`, but not out of `total_tokens`: the
    larger of the two counts as output. DeepSeek has a name of its own for what it read from its
    cache.
    """
    sent = fields_of(usage)
    given = fields_of(sent.get("prompt_tokens_details"))
    made = fields_of(sent.get("completion_tokens_details"))
    asked = count(sent.get("prompt_tokens"))
    answered = max(count(sent.get("completion_tokens")), count(sent.get("total_tokens")) - asked)
    cached = min(count(given.get("cached_tokens", sent.get("prompt_cache_hit_tokens"))), asked)
    return Usage(
        input_tokens=asked,
        cached_input_tokens=cached,
        cache_write_tokens=min(count(given.get("cache_write_tokens")), asked - cached),
        output_tokens=answered,
        reasoning_tokens=min(count(made.get("reasoning_tokens")), answered),
    )


def read_anthropic(usage: object) -> Usage:
    """Return the counts of a message's usage."""
    sent = fields_of(usage)
    cached = count(sent.get("cache_read_input_tokens"))
    writes = fields_of(sent.get("cache_creation"))
    written = max(
        count(sent.get("cache_creation_input_tokens")),
        count(writes.get("ephemeral_5m_input_tokens"))
        + count(writes.get("ephemeral_1h_input_tokens")),
    )
    answered = count(sent.get("output_tokens"))
    thought = count(fields_of(sent.get("output_tokens_details")).get("thinking_tokens"))
    return Usage(
        input_tokens=count(sent.get("input_tokens")) + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=answered,
        reasoning_tokens=min(thought, answered),
    )


def read_result(usage: object) -> Usage:
    """Return the counts of a result, from the form of `Result.as_json`."""
    sent = fields_of(usage)
    return Usage(**{name: count(sent.get(name)) for name in Usage.__dataclass_fields__})
