"""OpenAI's dialect: bodies of calls as fields of a request, and results as bodies of answers.

Sources: OpenAI's reference of chat completions and embeddings. What a vendor of this dialect sent
comes back whole; a field of the form that it left out is ours.
"""

from __future__ import annotations

import base64
import struct
from typing import Any, Literal

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.from_anthropic import choice_from_message
from headgate.producer.dialects.stop_reasons import finish_reason
from headgate.producer.dialects.usage import (
    openai_tier,
    openai_usage,
    read_anthropic,
    read_result,
)
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request

Encoding = Literal["float", "base64"]

_OWN_PLACE = frozenset({"model", "messages", "input", "stream", "stream_options"})
"""Fields of a body that are no params."""

_OURS = frozenset(Request.model_fields) - {"params", "stream"}
_BOTH: dict[str, type] = {"user": str, "metadata": dict}
"""Fields of the vendors' bodies that are sent and name our own user and metadata, too."""


def fields_with_ours(body: Fields) -> Fields:
    """Return the fields of a request for a body that has our own fields beside OpenAI's.

    The lines of a batch have such bodies.
    """
    sent = {k: v for k, v in body.items() if k in _BOTH or (k not in _OURS and k != "stream")}
    fields = {k: v for k, v in body.items() if k in _OURS and k not in _BOTH}
    fields |= {name: body[name] for name, kind in _BOTH.items() if _names_ours(body, name, kind)}
    return {**fields, "params": sent} if sent else fields


def _names_ours(body: Fields, name: str, kind: type) -> bool:
    """Return whether the vendor's field can be our field of the same name, too."""
    return isinstance(body.get(name), kind) and bool(body[name])


def chat_fields(body: Fields) -> RequestFields:
    """Return the fields of a request for the body of POST /v1/chat/completions.

    Raises InvalidRequest that names the field of the body. `stream_options` is no part of the
    request: it only shapes the answer.
    """
    if body.get("messages") is None:
        raise InvalidRequest("messages", None, "is missing; give a list of messages")
    fields: RequestFields = {"messages": body["messages"], **_model_and_params(body)}
    if is_streamed(body):
        fields["stream"] = fields["events"] = True
    elif body.get("stream_options") is not None:
        raise InvalidRequest("stream_options", body["stream_options"], "needs stream: true")
    return fields


def embedding_fields(body: Fields) -> RequestFields:
    """Return the fields of a request for the body of POST /v1/embeddings.

    Raises InvalidRequest that names the field of the body. `encoding_format` is no part of the
    request: it only shapes the answer.
    """
    if body.get("input") is None:
        raise InvalidRequest("input", None, "is missing; give a text or a list of texts")
    encoding_of(body)
    fields: RequestFields = {"input": body["input"], **_model_and_params(body)}
    fields.get("params", {}).pop("encoding_format", None)
    return fields


def moderation_fields(body: Fields) -> RequestFields:
    """Return the fields of a request for the body of POST /v1/moderations.

    Raises InvalidRequest that names the field of the body.
    """
    if body.get("input") is None:
        raise InvalidRequest("input", None, "is missing; give a text, texts or a list of parts")
    return {"dialect": "moderations", "input": body["input"], **_model_and_params(body)}


def encoding_of(body: Fields) -> Encoding:
    """Return how the caller wants its embeddings; raise InvalidRequest for an unknown way."""
    wanted = body.get("encoding_format")
    if wanted not in (None, "float", "base64"):
        raise InvalidRequest("encoding_format", wanted, "use float or base64")
    return "base64" if wanted == "base64" else "float"


def is_streamed(body: Fields) -> bool:
    """Return whether the caller wants a stream; raise InvalidRequest for no true or false."""
    wanted = body.get("stream")
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidRequest("stream", wanted, "use true or false")
    return wanted is True


def wants_usage(body: Fields) -> bool:
    """Return whether the caller of a stream wants a chunk with the usage at its end.

    Raises InvalidRequest for options that are none.
    """
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("stream_options", options, 'give an object: {"include_usage": true}')
    wanted = fields_of(options).get("include_usage")
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidRequest("stream_options.include_usage", wanted, "use true or false")
    return wanted is True


def wants_json(body: Fields) -> bool:
    """Return whether the caller wants a JSON object: a code fence is then no part of the answer."""
    return fields_of(body.get("response_format")).get("type") == "json_object"


def as_in_body(fault: InvalidRequest) -> InvalidRequest:
    """Return the fault with its field named as in a body, where params have no folder."""
    name = fault.field.removeprefix("params.")
    return fault if name == fault.field else InvalidRequest(
        name, fault.value, fault.remedy, fault.code
    )  # fmt: skip


def _model_and_params(body: Fields) -> RequestFields:
    fields: RequestFields = {}
    if body.get("model") is not None:
        fields["model"] = body["model"]
    if params := {name: value for name, value in body.items() if name not in _OWN_PLACE}:
        fields["params"] = params
    return fields


def completion(result: Fields) -> Fields:
    """Return the chat completion of a job that succeeded; `result`: as `Result.as_json()`."""
    message = fields_of(result.get("message"))
    if is_completion(message):
        return {**message, **left_out(_plain(result), message)}
    return _translated(result, message) if is_message(message) else _plain(result)


def is_completion(message: Fields) -> bool:
    """Return whether a vendor's message is a chat completion of OpenAI's form."""
    return isinstance(message.get("choices"), list)


def is_message(message: Fields) -> bool:
    """Return whether a vendor's message is a message of Anthropic's form."""
    return isinstance(message.get("content"), list)


def left_out(ours: Fields, message: Fields) -> Fields:
    """Return those of our fields with a value that the vendor left out of its message."""
    return {
        name: value for name, value in ours.items() if name not in message and value is not None
    }


def _plain(result: Fields) -> Fields:
    """Return a completion made of what the result says, for an answer without a message."""
    told: Fields = {"role": "assistant", "content": result.get("content"), "refusal": None}
    if result.get("tool_calls"):
        told["tool_calls"] = result["tool_calls"]
    finish = finish_reason(result.get("finish_reason"))
    choice = {"index": 0, "message": told, "logprobs": None, "finish_reason": finish}
    return {
        **head(result["id"], result.get("model_used") or result["model"]),
        "choices": [choice],
        "usage": openai_usage(read_result(result.get("usage"))),
    }


def _translated(result: Fields, message: Fields) -> Fields:
    """Return a message of Anthropic's as a completion."""
    body = _plain(result)
    body["choices"] = [
        choice_from_message(message, result.get("content"), result.get("tool_calls"))
    ]
    usage = message.get("usage")
    if usage:
        body["usage"] = openai_usage(read_anthropic(usage))
    body["model"] = text_of(message.get("model")) or body["model"]
    return {**body, "service_tier": openai_tier(usage)}


def head(job_id: str, model: str, kind: str = "chat.completion") -> Fields:
    """Return the fields at the head of a completion that we make, and of its chunks."""
    return {
        "id": f"chatcmpl-{job_id}",
        "object": kind,
        "created": unix_s(job_id),
        "model": model,
    }


def embeddings(result: Fields, encoding: Encoding = "float") -> Fields:
    """Return the embeddings of a job that succeeded; `result`: as `Result.as_json()`.

    `encoding`: a vector is a list of numbers, or base64 of little-endian float32.
    """
    asked = (result.get("usage") or {}).get("input_tokens", 0)
    vectors: list[Any] = result.get("embeddings") or []
    if encoding == "base64":
        vectors = [packed(vector) for vector in vectors]
    ours: Fields = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)
        ],
        "model": result.get("model_used") or result["model"],
        "usage": {"prompt_tokens": asked, "total_tokens": asked},
    }
    message = fields_of(result.get("message"))
    rows = objects_of(message.get("data"))
    if not rows:
        return ours
    body = {**message, **left_out(ours, message)}
    body["data"] = [
        row | {"embedding": vectors[row.get("index", at)]} for at, row in enumerate(rows)
    ]
    return body


def moderation(result: Fields) -> Fields:
    """Return the moderation of a job that succeeded; `result`: as `Result.as_json()`."""
    ours = {
        "id": f"modr-{result['id']}",
        "model": result.get("model_used") or result["model"],
        "results": [],
    }
    return {**ours, **fields_of(result.get("message"))}


def is_moderation(message: Fields) -> bool:
    """Return whether a vendor's message is a moderation object."""
    return isinstance(message.get("results"), list)


def packed(vector: list[float | None]) -> str:
    """Return a vector as base64 of little-endian float32; null becomes NaN."""
    numbers = [float("nan") if x is None else x for x in vector]
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def unix_s(job_id: str) -> int:
    """Return the Unix second of the job's creation, taken from its id (a UUIDv7)."""
    digits = job_id.replace("-", "")[:12]
    return int(digits, 16) // 1000
