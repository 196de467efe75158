"""Lays defaults under the fields of a request: those of a batch's lines or a command's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.shared.job.responses_checks import length_param, with_responses_form

_LENGTHS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
"""Names of one param: a request that gives any of them keeps it."""

_MERGED = ("params", "metadata", "cache")
"""Fields whose parts are laid under those of the request one by one."""


def with_defaults(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the defaults for what they leave out.

    `defaults`: fields of a request, and beside them `max_tokens` and `system`, a system message for
    requests without one. An embedding gets no params and no system message, and a request by
    template keeps its template's messages.
    """
    filled = with_responses_form(dict(fields))
    is_embedding = embeds(filled)
    for name, value in defaults.items():
        if name in ("max_tokens", "system") or (name == "params" and is_embedding):
            continue
        own = filled.get(name)
        if own is None:
            filled[name] = value
        elif name in _MERGED and isinstance(own, dict) and isinstance(value, dict):
            filled[name] = {**_without_length(value, own), **own}
    if defaults.get("max_tokens") is not None and not is_embedding:
        _limit_length(filled, defaults["max_tokens"])
    if defaults.get("system") is not None:
        _put_system(filled, defaults["system"])
    return filled


def embeds(fields: Mapping[str, Any]) -> bool:
    """Return whether these are the fields of an embedding job."""
    return fields.get("input") is not None and fields.get("dialect") != "responses"


def _without_length(defaults: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    if own.keys() & _LENGTHS:
        return {name: value for name, value in defaults.items() if name not in _LENGTHS}
    return defaults


def _limit_length(fields: dict[str, Any], max_tokens: Any) -> None:
    params = fields.get("params")
    if params is None:
        params = {}
    if isinstance(params, dict) and not params.keys() & _LENGTHS:
        fields["params"] = {**params, length_param(fields.get("dialect")): max_tokens}


def _put_system(fields: dict[str, Any], text: Any) -> None:
    """Put the system message in front, unless the request has one."""
    if fields.get("dialect") == "anthropic":
        params = fields.get("params") or {}
        if isinstance(params, dict):
            fields["params"] = {"system": text, **params}
        return
    if fields.get("dialect") == "responses":
        _put_instructions(fields, text)
        return
    message = {"role": "system", "content": text}
    prompt, messages = fields.get("prompt"), fields.get("messages")
    if isinstance(prompt, str) and prompt and messages is None:
        del fields["prompt"]
        fields["messages"] = [message, {"role": "user", "content": prompt}]
    elif isinstance(messages, list) and messages and not any(map(_is_system, messages)):
        fields["messages"] = [message, *messages]


def _put_instructions(fields: dict[str, Any], text: Any) -> None:
    """Make the text the instructions of a request of Responses, unless it has a system prompt."""
    params, items = fields.get("params") or {}, fields.get("input")
    if isinstance(items, list) and any(map(_is_system, items)):
        return
    if isinstance(params, dict):
        fields["params"] = {"instructions": text, **params}


def _is_system(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")
