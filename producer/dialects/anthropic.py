"""Anthropic's dialect: the body of a call as fields of a request, and a result as a message.

Source: Anthropic's reference of the Messages API. What a vendor of this dialect sent comes back
whole; a field of the form that it left out is ours.
"""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.from_openai import message_from_choice
from headgate.producer.dialects.openai import is_completion, is_message, is_streamed, left_out
from headgate.producer.dialects.usage import anthropic_usage, read_openai, read_result
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import InvalidRequest

_OWN_PLACE = frozenset({"model", "messages", "stream"})
"""Fields of a body that are no params."""


def message_fields(body: Fields) -> RequestFields:
    """Return the fields of a request for the body of POST /v1/messages.

    Raises InvalidRequest that names the field of the body.
    """
    if body.get("messages") is None:
        raise InvalidRequest("messages", None, "is missing; give a list of messages")
    fields: RequestFields = {"dialect": "anthropic", "messages": body["messages"]}
    if body.get("model") is not None:
        fields["model"] = body["model"]
    if params := {name: value for name, value in body.items() if name not in _OWN_PLACE}:
        fields["params"] = params
    if is_streamed(body):
        fields["stream"] = fields["events"] = True
    return fields


def message(result: Fields) -> Fields:
    """Return the message of a job that succeeded; `result`: as `Result.as_json()`."""
    sent = fields_of(result.get("message"))
    if is_message(sent):
        return {**sent, **left_out(_translated(result, {}), sent)}
    return _translated(result, sent if is_completion(sent) else {})


def _translated(result: Fields, completion: Fields) -> Fields:
    """Return a chat completion as a message.

    `completion`: empty for an answer without one, which is made of what the result says.
    """
    choices = objects_of(completion.get("choices"))
    choice = choices[0] if choices else {"finish_reason": result.get("finish_reason")}
    job_id, model = result["id"], text_of(completion.get("model"))
    usage = completion.get("usage")
    counts = read_openai(usage) if usage else read_result(result.get("usage"))
    return {
        **head(job_id, model or result.get("model_used") or result["model"]),
        **message_from_choice(choice, job_id, result.get("content"), result.get("tool_calls")),
        "usage": anthropic_usage(counts, completion.get("service_tier")),
        "container": None,
    }


def head(job_id: str, model: str) -> Fields:
    """Return the fields at the head of a message that we make."""
    name = f"msg_{job_id.replace('-', '')}"
    return {"id": name, "type": "message", "role": "assistant", "model": model}
