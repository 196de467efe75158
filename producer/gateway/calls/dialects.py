"""What each kind of call asks for, and what it is answered: the vendors' bodies and ours."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.producer.callers.caller import Scope
from headgate.producer.dialects import anthropic, openai
from headgate.producer.dialects.responses import body as responses
from headgate.producer.dialects.responses.response import head, response
from headgate.producer.dialects.responses.stream import ResponseStream
from headgate.producer.dialects.streams import StreamTranslator, translator
from headgate.producer.gateway.calls.call import GatewayCall, Kind
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Dialect
from headgate.shared.job.request_checks import BETAS, VERSION
from headgate.shared.job.result import Result

DIALECTS: Mapping[Kind, Dialect] = {
    "chat": "openai", "embeddings": "openai", "messages": "anthropic", "responses": "responses",
    "moderations": "openai",
}  # fmt: skip

ASKED_FOR: Mapping[Kind, Scope] = {
    "chat": "chat", "embeddings": "embeddings", "messages": "chat", "responses": "chat",
    "moderations": "chat",
}  # fmt: skip


def dialect_at(path: str, headers: Container[str]) -> Dialect:
    """Return the dialect of an answer at an address that both vendors have, or none."""
    if path.startswith("/v1/responses"):
        return "responses"
    is_anthropic = "anthropic-version" in headers or path.startswith("/v1/messages")
    return "anthropic" if is_anthropic else "openai"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a body asks for. `user`: the end user that it names to the vendor, if it does.

    `include_usage`: a stream ends with its usage. `json_only`: the answer is to be a JSON object.
    `base64`: embeddings are wanted in base64. The last three are those of a GatewayCall.
    """

    fields: RequestFields
    user: object = None
    include_usage: bool = False
    json_only: bool = False
    base64: bool = False
    background: bool = False
    is_stored: bool = True
    asked: dict[str, Any] = field(default_factory=dict)


def fields_of(kind: Kind, body: dict[str, Any], headers: Mapping[str, str]) -> Wish:
    """Return what the body asks for; raise InvalidRequest that names a field of the body."""
    if kind == "moderations":
        return Wish(openai.moderation_fields(body), body.get("user"))
    if body.get("model") is None:
        raise InvalidRequest("model", None, 'is missing; name a model, or "auto"')
    if kind == "embeddings":
        base64 = openai.encoding_of(body) == "base64"
        return Wish(openai.embedding_fields(body), body.get("user"), base64=base64)
    if kind == "responses":
        return Wish(
            responses.response_fields(body), body.get("user"), asked=responses.asked(body),
            background=body.get("background") is True, is_stored=body.get("store") is not False,
        )  # fmt: skip
    if kind == "messages":
        person = body.get("metadata")
        user = person.get("user_id") if isinstance(person, dict) else None
        fields = anthropic.message_fields(body)
        fields["params"] = {**fields.get("params", {}), **_of_headers(headers)}
        return Wish(fields, user)
    return Wish(
        openai.chat_fields(body), body.get("user"),
        include_usage=openai.wants_usage(body), json_only=openai.wants_json(body),
    )  # fmt: skip


def _of_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the version of Anthropic's API, and the names of what is new there, as params."""
    params: dict[str, Any] = {}
    if version := headers.get("anthropic-version"):
        params[VERSION] = version
    names = headers.get("anthropic-beta", "").split(",")
    if betas := [name.strip() for name in names if name.strip()]:
        params[BETAS] = betas
    return params


def answer_body(call: GatewayCall, result: Result) -> dict[str, Any]:
    """Return the answer in the dialect of the call: the vendor's own, whole, if it fits."""
    fields = result.as_json()
    if call.kind == "responses":
        return response(fields, call.asked)
    if call.kind == "messages":
        return anthropic.message(fields)
    if call.kind == "embeddings":
        return openai.embeddings(fields, "base64" if call.base64 else "float")
    return openai.moderation(fields) if call.kind == "moderations" else openai.completion(fields)


def stream_of(call: GatewayCall, job_id: str) -> StreamTranslator:
    """Return what makes the stream of a job's answer in the dialect of the call."""
    if call.kind == "responses":
        return ResponseStream(job_id, call.asked)
    return translator(
        call.dialect, job_id=job_id, model=call.model,
        include_usage=call.include_usage, json_only=call.json_only,
    )  # fmt: skip


def queued_body(call: GatewayCall, job_id: str) -> dict[str, Any]:
    """Return the answer to a caller who does not wait: the response, without an answer."""
    return head(job_id, call.asked, "queued")
