"""What each kind of call asks for, and what it is answered: the vendors' bodies and ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headgate.producer.callers.caller import Scope
from headgate.producer.dialects import anthropic, openai
from headgate.producer.gateway.call import Call, Kind
from headgate.producer.submit.fields import RequestFields
from headgate.shared.job.request import Dialect
from headgate.shared.job.result import Result

DIALECTS: Mapping[Kind, Dialect] = {
    "chat": "openai", "embeddings": "openai", "messages": "anthropic",
}  # fmt: skip

ASKED_FOR: Mapping[Kind, Scope] = {
    "chat": "chat", "embeddings": "embeddings", "messages": "chat",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wish:
    """What a body asks for. `user`: the end user that it names to the vendor, if it does.

    `include_usage`: a stream ends with its usage. `base64`: embeddings are wanted in base64.
    """

    fields: RequestFields
    user: object = None
    include_usage: bool = False
    base64: bool = False


def fields_of(kind: Kind, body: dict[str, Any], headers: Mapping[str, str]) -> Wish:
    """Return what the body asks for; raise InvalidRequest that names a field of the body."""
    if kind == "embeddings":
        base64 = body.get("encoding_format") == "base64"
        return Wish(openai.embedding_fields(body), body.get("user"), base64=base64)
    if kind == "messages":
        person = body.get("metadata")
        user = person.get("user_id") if isinstance(person, dict) else None
        return Wish(anthropic.message_fields(body, headers.get("anthropic-beta", "")), user)
    options = body.get("stream_options")
    usage = isinstance(options, dict) and options.get("include_usage") is True
    return Wish(openai.chat_fields(body), body.get("user"), include_usage=usage)


def answer_body(call: Call, result: Result) -> dict[str, Any]:
    """Return the answer in the dialect of the call: the vendor's own, whole, if it fits."""
    fields = result.as_json()
    if call.kind == "messages":
        return anthropic.message(fields)
    if call.kind == "embeddings":
        return openai.embeddings(fields, "base64" if call.base64 else "float")
    return openai.completion(fields)
