"""OpenAI's dialect: chat, Responses, embeddings and moderations, at OpenAI or elsewhere.

Of a request in OpenAI's form params pass through as they are, null included. Two things change:
which of `max_tokens` and `max_completion_tokens` is sent (see `limit_name`), and at OpenAI itself
the marks of Anthropic's prompt cache are left out, which it refuses. `openai_request.py` translates
a request in Anthropic's form. One in the form of Responses is sent as it is (`responses/`) where
the provider has them, and else as a chat completion. Importing this module takes 0.4 s and 46 MB,
because of the SDK.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import Any

import openai

from headgate.shared.catalog.access import checked_key
from headgate.shared.cost.rates import PLAIN, BillingTerms
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Usage
from headgate.shared.responses.chat_form import chat_request
from headgate.shared.routing.dialects import beyond_openai
from headgate.workers.provider import Answer, AnswerSink, Room
from headgate.workers.providers.chat_parts import INSTEAD_OF_TEXT, ChatParts
from headgate.workers.providers.http import HttpPool, Response, headers_only_client
from headgate.workers.providers.moderation.verdicts import read_moderation
from headgate.workers.providers.openai_request import limit_name, translated_body
from headgate.workers.providers.reading import MOST_BYTES
from headgate.workers.providers.refusals import ModelRefused, request_id, unusable
from headgate.workers.providers.reply_fields import (
    count,
    fields_of,
    limit_and_id_headers,
    storable,
    tier_of,
)
from headgate.workers.providers.responses.body import PATH as RESPONSES
from headgate.workers.providers.responses.body import response_body
from headgate.workers.providers.responses.parts import ResponseParts
from headgate.workers.providers.responses.reply import read_response
from headgate.workers.providers.responses.reply import read_usage as read_response_usage
from headgate.workers.providers.streaming import AnswerStream, post_and_decode

ADDRESS = "https://api.openai.com/v1"
CHAT, EMBEDDINGS, MODERATIONS = "/chat/completions", "/embeddings", "/moderations"
ENDPOINTS = (CHAT, EMBEDDINGS, RESPONSES, MODERATIONS)

Read = Callable[[dict[str, Any], Response, Request], Answer]
"""Reads the decoded answer."""

_NUMBERS = {float, int}


class OpenAIProvider:
    """One account at one address that speaks OpenAI's dialect."""

    def __init__(
        self,
        *,
        name: str,
        api_key: str,
        base_url: str | None,
        organization: str | None = None,
        project: str | None = None,
        stream_options: bool = True,
        responses: bool = False,
        connections: int = 1000,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.name = name
        self._key = checked_key(f"API key of {name}", api_key)
        self._stream_options = stream_options  # some servers refuse them
        self._has_responses = responses
        self._vendor = base_url is None or _is_openai(base_url)
        client = openai.AsyncOpenAI(
            # A local server may need no key, but the SDK requires one.
            api_key=self._key or "none",
            # Always given, or the SDK reads the environment. Only the settings may do that.
            base_url=base_url or ADDRESS,
            organization=organization or "",
            project=project or "",
            http_client=headers_only_client(),
        )
        self._http = HttpPool(
            base_url or ADDRESS,
            {**client.auth_headers, **client.default_headers},
            endpoints=ENDPOINTS,
            connections=connections,
            most_bytes=most_bytes,
            vendor=self._vendor,
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
        """Return the model's answer; raises one of the AttemptErrors, or CancelledError.

        `model` is the vendor's id. The answer is limited to `max_output_tokens` only if the caller
        asked for more, as can happen with a fallback to a smaller model.
        """
        path, body, into, read = self._call(request, model, max_output_tokens, sink)
        response, decoded = await post_and_decode(
            self._http, path, body, request, self._key,
            timeout_s=timeout_s, idle_s=idle_s, into=into, room=room,
        )  # fmt: skip
        return read(decoded, response, request)

    def _call(
        self, request: Request, model: str, max_output_tokens: int, sink: AnswerSink | None
    ) -> tuple[str, dict[str, Any], AnswerStream | None, Read]:
        """Return where to send what, what puts a streamed answer together, and what reads it."""
        if request.embeds:
            return EMBEDDINGS, embedding_body(request, model), None, read_embeddings
        if request.answer_kind == "moderation":
            return MODERATIONS, embedding_body(request, model), None, read_moderation
        if request.dialect == "responses" and self._has_responses:
            body = response_body(request, model, max_output_tokens)
            read = partial(read_response, secret=self._key)
            if sink is None:
                return RESPONSES, body, None, read
            parts = ResponseParts(sink.text)
            into = AnswerStream(parts, sink, self._key, read_response_usage)
            return RESPONSES, {**body, "stream": True}, into, read
        if request.dialect != "openai" and (beyond := beyond_openai(request)):
            words = f"OpenAI's chat completions have nothing like {beyond}; leave it out"
            raise ModelRefused(words, code="invalid_request")
        asked = chat_request(request)
        body = chat_body(asked, model, max_output_tokens, vendor=self._vendor)
        if sink is None:
            return CHAT, body, None, read_chat
        into = AnswerStream(
            ChatParts(sink.text, choices=choices_of(asked)), sink, self._key, read_usage
        )
        body["stream"] = True
        if self._stream_options:
            body["stream_options"] = {"include_usage": True}
        return CHAT, body, into, read_chat

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()


def _is_openai(base_url: str) -> bool:
    """Return True for api.openai.com and its regions, such as eu.api.openai.com."""
    return re.match(r"https?://(?:[\w-]+\.)?api\.openai\.com(?:[:/]|$)", base_url) is not None


def chat_body(
    request: Request, model: str, max_output_tokens: int, *, vendor: bool
) -> dict[str, Any]:
    """Return the body of a chat completion."""
    if request.dialect == "anthropic":
        return translated_body(request, model, max_output_tokens, vendor=vendor)
    body: dict[str, Any] = {"model": model, "messages": request.chat()}
    wanted = request.params.get("max_completion_tokens") or request.params.get("max_tokens")
    for name, value in request.params.items():
        if name not in LIMITS or wanted is None:
            body[name] = value
        else:
            most = max_output_tokens if max_output_tokens > 0 else wanted
            body[limit_name(model, vendor=vendor)] = min(wanted, most)
    return unmarked(body) if vendor else body


LIMITS = ("max_tokens", "max_completion_tokens")
MARK = "cache_control"


def unmarked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without marks of Anthropic's prompt cache on parts and tools."""
    messages = body["messages"]
    if any(map(_is_marked, messages)):
        body["messages"] = [
            {**message, "content": _without_marks(message["content"])}
            if _is_marked(message)
            else message
            for message in messages
        ]
    tools = body.get("tools")
    return {**body, "tools": _without_marks(tools)} if isinstance(tools, list) else body


def _is_marked(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(MARK in part for part in content)


def _without_marks(items: list[Any]) -> list[Any]:
    return [
        {name: value for name, value in item.items() if name != MARK}
        if isinstance(item, dict)
        else item
        for item in items
    ]


def choices_of(request: Request) -> int:
    """Return how many answers the request asks for."""
    n = request.params.get("n")
    return n if isinstance(n, int) and n > 0 else 1


def embedding_body(request: Request, model: str) -> dict[str, Any]:
    """Return the body of a call of embeddings or of moderations."""
    return {"model": model, "input": request.input, **request.params}


def read_chat(decoded: dict[str, Any], response: Response, request: Request) -> Answer:
    """Return the answer in a chat completion; raises InvalidOutput if there is none.

    A refusal, a sound or a call of a tool has no content: it stands in the vendor's message.
    """
    decoded = storable(decoded)
    choices = decoded.get("choices")
    if not isinstance(choices, list) or not choices:
        raise unusable(response, "it has no choices")
    choice = fields_of(choices[0])
    message = choice.get("message")
    if not isinstance(message, dict):
        raise unusable(response, "its first choice has no message")
    calls = message.get("tool_calls") or None
    if calls is not None and not (
        isinstance(calls, list) and all(isinstance(call, dict) for call in calls)
    ):
        raise unusable(response, "its tool calls are no list of objects")
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and finish else "stop"
    content = message.get("content")
    if isinstance(content, list):  # Mistral's reasoning models answer in parts
        content = "".join(text for text in (fields_of(p).get("text") for p in content)
                          if isinstance(text, str))  # fmt: skip
    if content is None and not any(message.get(name) for name in INSTEAD_OF_TEXT):
        content = ""  # all tokens went into reasoning: still an answer, and it is billed
    if content is not None and not isinstance(content, str):
        raise unusable(response, "its content is no text")
    usage, counted = read_usage(decoded.get("usage"))
    reply = Reply(
        content=content,
        finish_reason=finish,
        usage=usage,
        tool_calls=calls,
        provider_model=str(decoded.get("model") or ""),
        request_id=request_id(response.headers),
        message=decoded,
    )
    return Answer(reply, limit_and_id_headers(response.headers), counted, read_terms(decoded))


def read_embeddings(decoded: dict[str, Any], response: Response, request: Request) -> Answer:
    """Return the answer in an embeddings reply, with vectors in the order of the inputs.

    Its message has all but the vectors.
    """
    rows = decoded.get("data")
    wanted = len(request.inputs)
    if not isinstance(rows, list) or len(rows) != wanted:
        raise unusable(response, f"it does not hold {wanted} embeddings")
    vectors: list[list[float] | None] = [None] * wanted
    for at, row in enumerate(map(fields_of, rows)):
        index = row.get("index", at)
        if isinstance(index, int) and 0 <= index < wanted:
            vectors[index] = vector(row.get("embedding"), response)
    if None in vectors:
        raise unusable(response, "an input has no embedding")
    usage, counted = read_usage(decoded.get("usage"))
    reply = Reply(
        content=None,
        finish_reason="stop",
        usage=usage,
        embeddings=[found for found in vectors if found is not None],
        provider_model=str(decoded.get("model") or ""),
        request_id=request_id(response.headers),
        message=storable({**decoded, "data": [_without_vector(row) for row in rows]}),
    )
    return Answer(reply, limit_and_id_headers(response.headers), counted, read_terms(decoded))


def _without_vector(row: object) -> object:
    """Return a row of an embeddings reply without its vector, which the reply has already."""
    if not isinstance(row, dict):
        return row
    return {name: value for name, value in row.items() if name != "embedding"}


def vector(value: object, response: Response) -> list[float]:
    """Read one embedding: a list of numbers, or base64 of little-endian float32.

    NaN and the infinities are null in both: JSON has no other form for them.
    """
    if isinstance(value, str):
        try:
            packed = base64.b64decode(value, validate=True)
            numbers = struct.unpack(f"<{len(packed) // 4}f", packed)
        except (ValueError, struct.error) as error:
            raise unusable(response, "an embedding is no base64 of floats") from error
        value = [x if math.isfinite(x) else None for x in numbers]
    kinds = set(map(type, value)) if isinstance(value, list) else set()
    if not isinstance(value, list) or not kinds & _NUMBERS or kinds - _NUMBERS - {NoneType}:
        raise unusable(response, "an embedding is no list of numbers")
    return value


def read_usage(usage: object) -> tuple[Usage, bool]:
    """Return the tokens in our form, and whether the vendor sent any.

    `prompt_tokens` includes the cached part. Google and xAI leave reasoning out of
    `completion_tokens`, but not out of `total_tokens`: the larger of the two counts as output.
    """
    sent = fields_of(usage)
    given = fields_of(sent.get("prompt_tokens_details"))
    made = fields_of(sent.get("completion_tokens_details"))
    input_tokens = count(sent.get("prompt_tokens"))
    output_tokens = max(
        count(sent.get("completion_tokens")), count(sent.get("total_tokens")) - input_tokens
    )
    cached = count(given.get("cached_tokens", sent.get("prompt_cache_hit_tokens")))  # DeepSeek's
    cached = min(cached, input_tokens)
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=min(count(given.get("cache_write_tokens")), input_tokens - cached),
        output_tokens=output_tokens,
        reasoning_tokens=min(count(made.get("reasoning_tokens")), output_tokens),
    ), input_tokens + output_tokens > 0


def read_terms(decoded: dict[str, Any]) -> BillingTerms:
    """Return what the bill depends on besides the tokens: the service tier, and audio.

    Audio is part of the token counts but has a price of its own, which we do not know.
    """
    sent = fields_of(decoded.get("usage"))
    sides = (sent.get("prompt_tokens_details"), sent.get("completion_tokens_details"))
    audio = any(count(fields_of(side).get("audio_tokens")) for side in sides)
    tier = tier_of(decoded.get("service_tier"))
    return BillingTerms(service_tier=tier, unpriced=audio) if tier or audio else PLAIN
