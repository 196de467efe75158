"""The fingerprint of a request: the key of the exact cache. Pure.

Two requests have the same fingerprint if no model can tell them apart. These are the same:

* another order of keys, except in a JSON schema's `properties`, because OpenAI's models answer in
  that order (guide "Structured outputs", "Key ordering"); the order of messages counts too;
* a prompt and one user message with that text; a text and a list of one text part;
* a param that is null and one that is absent; 1 and 1.0; one stop text and a list of it; `n: 1`;
* `max_tokens` and `max_completion_tokens`, because each provider is sent the name that it knows.

Requests in different forms never have the same fingerprint. In the form of OpenAI's Responses a
text is the same as one message of the user with it. There the answer repeats `user`, `metadata` and
`safety_identifier`, so they count, and so does `store`.

Any other difference counts: a needless miss costs a call, but a wrong hit gives a wrong answer.
Measured: 3 us for a short prompt, 5 us with five params, 20 us with two tools.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from headgate.shared.job.encoding import dumps
from headgate.shared.job.request import Request

UNSEEN = frozenset({
    "user", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention",
    "safety_identifier", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "cache_control", "diagnostics",
})  # fmt: skip
"""Params that no answer depends on, and two names of one param, which `_params` adds again.

`cache_control` and `diagnostics` are about Anthropic's prompt cache. `user`, `metadata` and `store`
are for the vendor's records. The cache policy (`ttl.py`) takes no
answer for a request that is to be stored.
"""

MARK = "cache_control"
"""Anthropic's mark for its own prompt cache: on parts of messages, system blocks and tools."""

WHOLE_BELOW = 2.0**53
"""Below this every whole number is a float of its own."""


def fingerprint(request: Request, model: str, sample: int = 1) -> str:
    """Return 64 hexadecimal digits over all that can change the answer of `model`.

    The tenant counts, so tenants never share an answer. User, priority, metadata and deadline do
    not, because no model sees them. Each `sample` of a request has an answer of its own; the first
    has that of the request without samples.
    """
    question = {
        "tenant": request.tenant,
        "model": model,
        **_asked(request),
        **({"sample": sample} if sample > 1 else {}),
        **({"dialect": request.dialect} if request.dialect != "openai" else {}),
    }
    return hashlib.sha256(dumps(question, orjson.OPT_SORT_KEYS)).hexdigest()


def _asked(request: Request) -> dict[str, Any]:
    """Return what is asked, and with which params."""
    params = _params(request.params) if request.params else {}
    if request.dialect != "responses":
        is_chat = request.answer_kind == "text"
        messages = [_message(one) for one in request.chat()] if is_chat else None
        return {"input": _input(request.input), "messages": messages, "params": params}
    given = request.prompt if request.input is None else request.input
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    params.update((n, request.params[n]) for n in _REPEATED if request.params.get(n) is not None)
    return {"input": items, "messages": None, "params": params}


_REPEATED = ("metadata", "safety_identifier", "store", "user")
"""Params that a Response repeats or that decide about its life, of those that change no words."""


def _input(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], int):
        return value[0]
    return value


def _message(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str) and len(message) == 2:
        return message
    fields = {name: value for name, value in message.items() if value is not None}
    if isinstance(content, list):
        parts = [_unmarked(part) for part in content]
        fields["content"] = _text_of(parts) or parts
    return fields


def _text_of(parts: list[Any]) -> str | None:
    """Return the text if there is one part, and it is a text and nothing more; else None."""
    match parts:
        case [{"type": "text", "text": str(text), **others}] if not others:
            return text
    return None


def _unmarked(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if MARK in part:
        part = {name: value for name, value in part.items() if name != MARK}
    if isinstance(inner := part.get("content"), list):  # the result of a tool
        part = {**part, "content": [_unmarked(one) for one in inner]}
    return part


def _params(params: Mapping[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for name, value in params.items():
        if value is None or name in UNSEEN:
            continue
        if isinstance(value, dict | list):
            seen[name] = _nested(name, value)
        elif name == "stop":
            seen[name] = [value]
        elif name != "n" or value != 1:
            seen[name] = _number(value)
    max_tokens = params.get("max_completion_tokens") or params.get("max_tokens")
    if max_tokens is not None:
        seen["max_tokens"] = _number(max_tokens)
    return seen


def _nested(name: str, value: Any) -> Any:
    if name == "logit_bias" and isinstance(value, dict):
        return {token: _number(bias) for token, bias in value.items()}
    if name in ("tools", "system") and isinstance(value, list):
        value = [_unmarked(part) for part in value]
    return _in_order(value)


def _in_order(value: Any) -> Any:
    """Return the value with each JSON schema's `properties` as pairs, which are never sorted."""
    if isinstance(value, dict):
        return {
            key: [[name, _in_order(one)] for name, one in part.items()]
            if key == "properties" and isinstance(part, dict)
            else _in_order(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [_in_order(part) for part in value]
    return value


def _number(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < WHOLE_BELOW:
        return int(value)
    return value
