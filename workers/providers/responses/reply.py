"""Reads a Response of OpenAI's into our terms: text, calls of tools, usage and bill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson

from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Usage
from headgate.workers.errors import AttemptError
from headgate.workers.provider import Answer
from headgate.workers.providers.http import Response
from headgate.workers.providers.json_body import texts_of
from headgate.workers.providers.refusals import refusal, request_id, unusable
from headgate.workers.providers.reply_fields import (
    count,
    fields_of,
    limit_and_id_headers,
    storable,
    tier_of,
)

#: Why a Response is incomplete, in the terms of chat completions. Others are passed on as they are.
INCOMPLETE = {"max_output_tokens": "length", "content_filter": "content_filter"}

#: Items of the output that have no price of their own: the tokens are their whole bill.
PRICED = frozenset({
    "message", "reasoning", "function_call", "custom_tool_call", "compaction", "local_shell_call",
    "computer_call", "apply_patch_call", "tool_search_call", "tool_search_output",
})  # fmt: skip


def read_response(
    decoded: dict[str, Any], response: Response, request: Request, *, secret: str
) -> Answer:
    """Return the answer in a Response; raise an AttemptError if it failed or holds none.

    `secret`: the API key, which no error may repeat.
    """
    decoded = storable(decoded)
    if decoded.get("status") in ("failed", "cancelled"):
        raise failure(decoded, response, request, secret)
    output = decoded.get("output")
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise unusable(response, "it has no list of output items")
    texts = [text for text in (part.get("text") for part in parts_of(output)) if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise unusable(response, "a part of its output holds no text")
    calls = [call for item in output if (call := tool_call(item, response)) is not None]
    usage, counted = read_usage(decoded.get("usage"))
    reply = Reply(
        content=_content(output, texts, calls),
        finish_reason=_finish(decoded, calls),
        usage=usage,
        tool_calls=calls or None,
        provider_model=str(decoded.get("model") or ""),
        request_id=request_id(response.headers),
        message=decoded,
    )
    headers = limit_and_id_headers(response.headers)
    return Answer(reply, headers, counted, read_terms(decoded, output))


def failure(
    decoded: dict[str, Any], response: Response, request: Request, secret: str
) -> AttemptError:
    """Return the error of a Response that failed; what was made until then may be billed."""
    fault = decoded.get("error") or {"message": f"the response is {decoded.get('status')}"}
    error = refusal(
        replace(response, content=orjson.dumps({"error": fault})), texts_of(request), secret
    )
    error.billed = None
    return error


def parts_of(output: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the texts in the messages of an output."""
    for item in output:
        content = item.get("content") if item.get("type") == "message" else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict) and part.get("type") == "output_text":
                yield part


def _content(
    output: list[dict[str, Any]], texts: list[Any], calls: list[dict[str, Any]]
) -> str | None:
    """Return the text; None if something else stands in its place: a call, a refusal, an image."""
    if texts:
        return "".join(texts)
    kinds = {str(item.get("type")) for item in output} - {"reasoning", "message"}
    return None if kinds or calls or _refuses(output) else ""


def _refuses(output: list[dict[str, Any]]) -> bool:
    contents = (item.get("content") for item in output if item.get("type") == "message")
    return any(
        fields_of(part).get("type") == "refusal"
        for content in contents
        for part in (content if isinstance(content, list) else ())
    )


def _finish(decoded: dict[str, Any], calls: list[dict[str, Any]]) -> str:
    if decoded.get("status") == "incomplete":
        reason = str(fields_of(decoded.get("incomplete_details")).get("reason") or "length")
        return INCOMPLETE.get(reason, reason)
    return "tool_calls" if calls else "stop"


def tool_call(item: dict[str, Any], response: Response) -> dict[str, Any] | None:
    """Return a call that the caller is to run, in the form of chat completions; None if it is none.

    Raises InvalidOutput for a call without a name.
    """
    kind = item.get("type")
    if kind not in ("function_call", "custom_tool_call"):
        return None
    name, call_id = item.get("name"), str(item.get("call_id") or item.get("id") or "")
    if not isinstance(name, str):
        raise unusable(response, "a tool call has no name")
    if kind == "function_call":
        function = {"name": name, "arguments": str(item.get("arguments") or "")}
        return {"id": call_id, "type": "function", "function": function}
    custom = {"name": name, "input": str(item.get("input") or "")}
    return {"id": call_id, "type": "custom", "custom": custom}


def read_usage(usage: object) -> tuple[Usage, bool]:
    """Return the tokens in our form, and whether the vendor sent any."""
    sent = fields_of(usage)
    given = fields_of(sent.get("input_tokens_details"))
    made = fields_of(sent.get("output_tokens_details"))
    input_tokens, output_tokens = count(sent.get("input_tokens")), count(sent.get("output_tokens"))
    cached = min(count(given.get("cached_tokens")), input_tokens)
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=min(count(given.get("cache_write_tokens")), input_tokens - cached),
        output_tokens=output_tokens,
        reasoning_tokens=min(count(made.get("reasoning_tokens")), output_tokens),
    ), input_tokens + output_tokens > 0


def read_terms(decoded: dict[str, Any], output: list[dict[str, Any]]) -> BillingTerms:
    """Return what the bill depends on besides the tokens: the service tier, and the vendor's tools.

    Tools that the vendor runs, such as searches, have prices of their own, which we do not know.
    """
    tier = tier_of(decoded.get("service_tier"))
    runs = any(str(item.get("type")) not in PRICED for item in output)
    return BillingTerms(service_tier=tier, unpriced=runs) if tier or runs else PLAIN
