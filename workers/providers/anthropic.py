"""Anthropic's dialect: the Messages API, for requests in Anthropic's form and in OpenAI's.

A request in Anthropic's form is sent as it is. `anthropic_request.py` translates one in OpenAI's
form and lists what it changes. The reply is translated here, into OpenAI's terms. Sampling params
are sent in the raw body, though the SDK's signatures no longer have them. Importing this module
takes 0.9 s and 72 MB, because of the SDK.
"""

from __future__ import annotations

import re
from typing import Any

import anthropic
import orjson

from headgate.shared.catalog.access import checked_key
from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Usage
from headgate.shared.responses.chat_form import chat_request
from headgate.shared.routing.dialects import beyond_anthropic
from headgate.workers.provider import Answer, AnswerSink, Room
from headgate.workers.providers.anthropic_request import messages_body, own_body, own_headers
from headgate.workers.providers.http import HttpPool, Response, headers_only_client
from headgate.workers.providers.message_parts import MessageParts
from headgate.workers.providers.reading import MOST_BYTES
from headgate.workers.providers.refusals import ModelRefused, request_id, unusable
from headgate.workers.providers.reply_fields import (
    count,
    fields_of,
    limit_and_id_headers,
    storable,
    tier_of,
)
from headgate.workers.providers.streaming import AnswerStream, post_and_decode

ADDRESS = "https://api.anthropic.com"

#: Anthropic's stop reasons in OpenAI's terms. Other reasons are passed on as they are.
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicProvider:
    """One account at Anthropic, or at an address that speaks its dialect."""

    def __init__(
        self,
        *,
        name: str,
        api_key: str,
        base_url: str | None,
        connections: int = 1000,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.name = name
        self._key = checked_key(f"API key of {name}", api_key)
        client = anthropic.AsyncAnthropic(
            # Both are always given, or the SDK looks for them in the environment and in files.
            api_key=self._key or "none",
            base_url=base_url or ADDRESS,
            open_telemetry=False,
            http_client=headers_only_client(),
        )
        self._http = HttpPool(
            base_url or ADDRESS,
            {**client.auth_headers, **client.default_headers},
            endpoints=("/messages", "/v1"),  # as OpenAI's addresses end, and whole
            connections=connections,
            most_bytes=most_bytes,
            vendor=base_url is None,
        )

    async def ask(
        self,
        request: Request,
        *,
        model: str,
        max_output_tokens: int,
        timeout_s: float,
        idle_s: float | None = None,
        sink: AnswerSink | None = None,
        room: Room | None = None,
    ) -> Answer:
        """Return the model's answer; raises one of the AttemptErrors, or CancelledError."""
        if (kind := request.answer_kind) != "text":
            raise ModelRefused(f"Anthropic has no {kind}", code="invalid_request")
        if beyond := beyond_anthropic(request):
            words = f"Anthropic has nothing like {beyond}; leave it out"
            raise ModelRefused(words, code="invalid_request")
        request = chat_request(request)
        make = own_body if request.dialect == "anthropic" else messages_body
        body = make(request, model, max_output_tokens)
        json_only, into = wants_json(request), None
        if sink is not None:
            parts = MessageParts(sink.text, json_only=json_only)
            into = AnswerStream(parts, sink, self._key, read_usage)
            body["stream"] = True
        response, decoded = await post_and_decode(
            self._http, "/v1/messages", body, request, self._key,
            timeout_s=timeout_s, idle_s=idle_s, into=into, room=room, headers=own_headers(request),
        )  # fmt: skip
        return read_message(decoded, response, json_only=json_only)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()


def wants_json(request: Request) -> bool:
    """Return True if the caller asked for JSON: a code fence is then no part of the answer."""
    if request.dialect == "anthropic":
        return False
    return fields_of(request.params.get("response_format")).get("type") == "json_object"


def read_message(decoded: dict[str, Any], response: Response, *, json_only: bool) -> Answer:
    """Return the answer in a message; raises InvalidOutput if there is none."""
    decoded = storable(decoded)
    blocks = decoded.get("content")
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise unusable(response, "it has no list of content blocks")
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise unusable(response, "a text block holds no text")
    text = "".join(text for text in texts if isinstance(text, str))
    calls = [tool_call(block, response) for block in blocks if block.get("type") == "tool_use"]
    reason = decoded.get("stop_reason")
    reason = reason if isinstance(reason, str) and reason else "end_turn"
    usage, counted = read_usage(decoded.get("usage"))
    reply = Reply(
        content=(without_fence(text) if json_only else text) if text or not calls else None,
        finish_reason=FINISH.get(reason, reason),
        usage=usage,
        tool_calls=calls or None,
        provider_model=str(decoded.get("model") or ""),
        request_id=request_id(response.headers),
        message=decoded,
    )
    terms = read_terms(decoded.get("usage"))
    return Answer(reply, limit_and_id_headers(response.headers), counted, terms)


def tool_call(block: dict[str, Any], response: Response) -> dict[str, Any]:
    """Return a tool_use block in OpenAI's form, with its arguments as JSON text."""
    if not isinstance(block.get("name"), str):
        raise unusable(response, "a tool call has no name")
    arguments = orjson.dumps(block.get("input") or {}).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": str(block.get("id") or ""), "type": "function", "function": function}


def without_fence(text: str) -> str:
    """Return the text without a Markdown code fence around all of it."""
    found = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    return found[1] if found else text


def read_usage(usage: object) -> tuple[Usage, bool]:
    """Return the tokens in our form, and whether the vendor sent any.

    Anthropic's `input_tokens` counts only what follows the last cache mark; ours counts all input.
    """
    sent = fields_of(usage)
    cached = count(sent.get("cache_read_input_tokens"))
    writes = fields_of(sent.get("cache_creation"))
    split = count(writes.get(SHORT_WRITES)) + count(writes.get(HOUR_WRITES))
    written = max(count(sent.get("cache_creation_input_tokens")), split)
    input_tokens = count(sent.get("input_tokens")) + cached + written
    output_tokens = count(sent.get("output_tokens"))
    thought = count(fields_of(sent.get("output_tokens_details")).get("thinking_tokens"))
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output_tokens,
        reasoning_tokens=min(thought, output_tokens),
    ), input_tokens + output_tokens > 0


SHORT_WRITES, HOUR_WRITES = "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"


def read_terms(usage: object) -> BillingTerms:
    """Return what the bill depends on besides the tokens."""
    sent = fields_of(usage)
    fast = sent.get("speed") == "fast"
    terms = BillingTerms(
        service_tier="fast" if fast else tier_of(sent.get("service_tier")),
        in_us=sent.get("inference_geo") == "us",
        hour_write_tokens=count(fields_of(sent.get("cache_creation")).get(HOUR_WRITES)),
        searches=count(fields_of(sent.get("server_tool_use")).get("web_search_requests")),
    )
    return PLAIN if terms == PLAIN else terms
