"""Bodies of OpenAI's Responses API as fields of a request, and requests as they were asked for."""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.openai import is_streamed
from headgate.producer.dialects.responses.ids import item_id
from headgate.producer.submit.fields import RequestFields
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request

BACKGROUND = "response.background"
PREVIOUS = "response.previous_response_id"
STORE = "response.store"
"""Names in a job's metadata: what our record needs of a body, and no vendor gets."""

_OWN_PLACE = frozenset({"model", "input", "stream", "stream_options", "background"})
"""Fields of a body that are no params."""

_IN_PLACE_OF_INPUT = ("instructions", "prompt", "previous_response_id", "conversation")


def response_fields(body: Fields) -> RequestFields:
    """Return the fields of a request for the body of POST /v1/responses.

    Raises InvalidRequest that names the field of the body.
    """
    fields = form_fields(body)
    if is_streamed(body):
        fields["stream"] = fields["events"] = True
    elif body.get("stream_options") is not None:
        raise InvalidRequest("stream_options", body["stream_options"], "needs stream: true")
    background, store = _truth(body, "background"), _truth(body, "store")
    marks: Fields = {}
    if background:
        if store is False:
            raise InvalidRequest("store", False, "a background response needs store: true")
        marks[BACKGROUND] = True
        if not fields.get("stream"):  # nobody watches
            fields["priority"] = "standard"
    if store is False:
        marks[STORE] = False
    if marks:
        fields["metadata"] = marks
    return fields


def form_fields(body: Fields) -> RequestFields:
    """Return the input, the model and the params of a body; raise InvalidRequest without input."""
    given = body.get("input")
    if given is None and not any(body.get(name) for name in _IN_PLACE_OF_INPUT):
        raise InvalidRequest("input", None, "is missing; give a text or a list of items")
    fields: RequestFields = {"dialect": "responses"}
    fields["input"] = "" if given is None else given
    if body.get("model") is not None:
        fields["model"] = body["model"]
    if params := {name: value for name, value in body.items() if name not in _OWN_PLACE}:
        fields["params"] = params
    return fields


def _truth(body: Fields, name: str) -> bool | None:
    """Return true or false of a body; raise InvalidRequest for anything else."""
    wanted = body.get(name)
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidRequest(name, wanted, "use true or false")
    return wanted


def asked(body: Fields) -> Fields:
    """Return what a response repeats of a body: the model and the params."""
    return {name: value for name, value in body.items() if name not in ("input", "stream")}


def asked_of(request: Request, model: str) -> Fields:
    """Return the same of a job's request; `model`: the one that was chosen for it."""
    marks = request.metadata
    ours = {"model": request.model or model, "background": marks.get(BACKGROUND) is True}
    return {**request.params, **ours, "previous_response_id": marks.get(PREVIOUS)}


def is_background(request: Request) -> bool:
    """Return whether the caller of a job's request does not wait for it."""
    return request.metadata.get(BACKGROUND) is True


def listed(items: list[Fields], job_id: str) -> list[Fields]:
    """Return the input items of a job as they are listed: with ids, and each in its long form."""
    return [_listed(item, job_id, n) for n, item in enumerate(items)]


def _listed(item: Fields, job_id: str, n: int) -> Fields:
    kind = text_of(item.get("type")) or "message"
    shown = {**item, "type": kind, "id": item.get("id") or item_id(kind, job_id, n)}
    if kind != "message":
        return {"status": "completed", **shown} if kind in _WITH_STATUS else shown
    is_ours = item.get("role") == "assistant"
    content = item.get("content")
    parts = [{"type": "input_text", "text": content}] if isinstance(content, str) else content
    return {
        "status": "completed",
        **shown,
        "content": [_part(p, is_ours) for p in objects_of(parts)],
    }


_WITH_STATUS = frozenset({
    "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output",
})  # fmt: skip


def _part(part: Fields, is_ours: bool) -> Fields:
    """Return a part of a message as it is listed. `is_ours`: the message is the model's."""
    kind = part.get("type")
    if is_ours and kind in ("input_text", "text"):
        kind = "output_text"
    if kind == "output_text":
        return {"annotations": [], "logprobs": [], **part, "type": kind}
    if kind == "input_image":
        return {"detail": "auto", **part}
    return {**part, "type": "input_text"} if kind == "text" else part


_ONLY_OF_OUTPUT = ("id", "logprobs")


def as_input(items: list[Fields]) -> list[Fields]:
    """Return output items as the input of a later request.

    Reasoning goes, since only the model that wrote it can read it, and so do ids that the vendor
    may not know.
    """
    return [
        {name: _plain(value) for name, value in item.items() if name not in _ONLY_OF_OUTPUT}
        for item in items
        if item.get("type") != "reasoning"
    ]


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [
            {name: one for name, one in part.items() if name not in _ONLY_OF_OUTPUT}
            if fields_of(part).get("type") == "output_text"
            else part
            for part in value
        ]
    return value


def request_items(request: Request) -> list[Fields]:
    """Return the input of a request as items, as the caller gave them."""
    given = request.input
    if isinstance(given, list):
        return objects_of(given)
    return [{"type": "message", "role": "user", "content": given}] if given else []
