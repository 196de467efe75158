"""Answers and streams in the form of OpenAI's Responses."""

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import orjson

from headgate.workers.simulator.answers import SimulatedAnswer, ToolCall, pieces
from headgate.workers.simulator.request import Json, SimulatedRequest

DEFAULTS: Json = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None,
    "metadata": {}, "parallel_tool_calls": True, "previous_response_id": None,
    "prompt_cache_key": None, "prompt_cache_retention": None, "safety_identifier": None,
    "store": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_logprobs": 0,
    "top_p": 1.0, "truncation": "disabled", "user": None,
}  # fmt: skip
"""What a Response repeats of its request, and what it says where the request says nothing."""

REASONS = {"length": "max_output_tokens", "filter": "content_filter"}
SEARCHES = ("web_search", "web_search_preview")


@dataclass(frozen=True, slots=True)
class SimulatedResponse:
    """One Response: its id, the second in which it was made, what was asked and answered."""

    id: str
    created: int
    ask: SimulatedRequest
    answer: SimulatedAnswer | None
    usage: Json

    @property
    def stores(self) -> bool:
        """Whether it is to be kept."""
        return (self.ask.body or {}).get("store") is not False

    def output(self) -> list[Json]:
        """Return the output items."""
        return [] if self.answer is None else [item for item, _ in _items(self)]

    def whole(self) -> Json:
        """Return the finished Response. An empty answer has no output at all."""
        answer = self.answer
        if answer is None:
            return {**_head(self), "status": "completed", "output": None, "usage": self.usage}
        reason = REASONS.get(answer.end)
        return {
            **_head(self),
            "status": "incomplete" if reason else "completed",
            "completed_at": None if reason else self.created,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self.output(),
            "usage": self.usage,
        }


def usage_of(answers: list[SimulatedAnswer], input_tokens: int, cached_tokens: int) -> Json:
    """Return the usage block. Input includes the cached part, output the reasoning."""
    output_tokens = sum(answer.output_tokens for answer in answers)
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {
            "reasoning_tokens": sum(answer.reasoning_tokens for answer in answers)
        },
        "total_tokens": input_tokens + output_tokens,
    }


@dataclass(slots=True)
class _Stream:
    """The events of a Response, numbered in order."""

    events: list[bytes] = field(default_factory=list)

    def add(self, kind: str, **fields: Any) -> None:
        """Add an event."""
        event = {"type": kind, "sequence_number": len(self.events), **fields}
        self.events.append(sse(event))


def events(response: SimulatedResponse) -> list[bytes]:
    """Return the server-sent events of a Response, in order."""
    stream = _Stream()
    opening = {**_head(response), "status": "in_progress", "output": [], "usage": None}
    stream.add("response.created", response=opening)
    stream.add("response.in_progress", response=opening)
    if response.answer is not None:
        for place, (item, deltas) in enumerate(_items(response)):
            _add_item(stream, place, item, deltas)
    whole = response.whole()
    stream.add(f"response.{whole['status']}", response=whole)
    return stream.events


def error_event(number: int) -> bytes:
    """Return the event of an error that comes after `number` events of the answer."""
    return sse(
        {
            "type": "error",
            "sequence_number": number,
            "code": "server_error",
            "message": "The server had an error while processing your request. (simulated)",
            "param": None,
        }
    )


def sse(event: Json) -> bytes:
    """Return a server-sent event with the name of its type."""
    return b"event: " + str(event["type"]).encode() + b"\ndata: " + orjson.dumps(event) + b"\n\n"


def _with_defaults(tool: Json) -> Json:
    """Return a tool as OpenAI repeats it: a function says all that it leaves out."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}


def _head(response: SimulatedResponse) -> Json:
    """Return what a Response says about itself and its request."""
    body = response.ask.body or {}
    told = {name: body.get(name) for name in DEFAULTS}
    repeated = {name: DEFAULTS[name] if one is None else one for name, one in told.items()}
    text, reasoning = body.get("text") or {}, body.get("reasoning") or {}
    conversation = body.get("conversation")
    if isinstance(conversation, str):
        conversation = {"id": conversation}
    return {
        "id": response.id,
        "object": "response",
        "created_at": response.created,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": response.ask.model,
        **repeated,
        "tools": [_with_defaults(tool) for tool in repeated["tools"]],
        **({"conversation": conversation} if conversation else {}),
        "reasoning": {"effort": None, "summary": None, **reasoning},
        "service_tier": "flex" if response.ask.flex else "default",
        "text": {"format": {"type": "text"}, "verbosity": "medium", **text},
    }


_Item = tuple[Json, list[str]]
"""A whole output item, and the pieces of its text or arguments."""


def _items(response: SimulatedResponse) -> list[_Item]:
    answer, ask = response.answer, response.ask
    if answer is None:
        return []
    body, items = ask.body or {}, list[_Item]()
    if answer.reasoning_tokens:
        items.append(_reasoning(response, answer, body))
    if any(tool.get("type") in SEARCHES for tool in body.get("tools") or ()):
        items.append(_search(response))
    custom = {t["name"] for t in body.get("tools") or () if t.get("type") == "custom"}
    if answer.calls:
        return items + [_call(response, call, call.name in custom) for call in answer.calls]
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
    message = {
        "id": _own_id(response, "msg", 0),
        "type": "message",
        "status": "incomplete" if answer.end in REASONS else "completed",
        "role": "assistant",
        "content": [part],
    }
    return [*items, (message, pieces(answer.text))]


def _reasoning(response: SimulatedResponse, answer: SimulatedAnswer, body: Json) -> _Item:
    item: Json = {"id": _own_id(response, "rs", 0), "type": "reasoning", "summary": []}
    if "reasoning.encrypted_content" in (body.get("include") or ()):
        item["encrypted_content"] = b64encode(response.ask.digest * 4).decode()
    if not (body.get("reasoning") or {}).get("summary"):
        return item, []
    text = answer.thinking or "**Thinking**\n\nA short answer will do."
    item["summary"] = [{"type": "summary_text", "text": text}]
    return item, pieces(text)


def _search(response: SimulatedResponse) -> _Item:
    query = response.ask.last[:60]
    item = {
        "id": _own_id(response, "ws", 0),
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": query, "queries": [query]},
    }
    return item, []


def _call(response: SimulatedResponse, call: ToolCall, is_custom: bool) -> _Item:
    kind, name, prefix = "function_call", "arguments", "fc"
    if is_custom:
        kind, name, prefix = "custom_tool_call", "input", "ctc"
    item = {
        "id": f"{prefix}_{response.id[5:]}{call.id[:6]}",
        "type": kind,
        "status": "completed",
        name: call.arguments,
        "call_id": f"call_{call.id}",
        "name": call.name,
    }
    return item, pieces(call.arguments)


def _own_id(response: SimulatedResponse, prefix: str, place: int) -> str:
    return f"{prefix}_{response.id[5:]}{place:02d}"


def _add_item(stream: _Stream, place: int, item: Json, deltas: list[str]) -> None:
    """Add the events of one output item."""
    begun = {**item}
    if "status" in item:
        begun["status"] = "in_progress"
    where: Json = {"output_index": place, "item_id": item["id"]}
    match item["type"]:
        case "message":
            stream.add(
                "response.output_item.added", output_index=place, item={**begun, "content": []}
            )
            _add_text(stream, where, item["content"][0], deltas)
        case "reasoning":
            stream.add(
                "response.output_item.added", output_index=place, item={**begun, "summary": []}
            )
            for part in item["summary"]:
                _add_summary(stream, where, part, deltas)
        case "function_call":
            stream.add(
                "response.output_item.added", output_index=place, item={**begun, "arguments": ""}
            )
            for delta in deltas:
                stream.add("response.function_call_arguments.delta", **where, delta=delta)
            stream.add(
                "response.function_call_arguments.done", **where, arguments=item["arguments"]
            )
        case "custom_tool_call":
            stream.add(
                "response.output_item.added", output_index=place, item={**begun, "input": ""}
            )
            for delta in deltas:
                stream.add("response.custom_tool_call_input.delta", **where, delta=delta)
            stream.add("response.custom_tool_call_input.done", **where, input=item["input"])
        case "web_search_call":
            stream.add("response.output_item.added", output_index=place, item=begun)
            for step in ("in_progress", "searching", "completed"):
                stream.add(f"response.web_search_call.{step}", **where)
    stream.add("response.output_item.done", output_index=place, item=item)


def _add_text(stream: _Stream, where: Json, part: Json, deltas: list[str]) -> None:
    where = {**where, "content_index": 0}
    stream.add("response.content_part.added", **where, part={**part, "text": ""})
    for delta in deltas:
        stream.add("response.output_text.delta", **where, delta=delta, logprobs=[])
    stream.add("response.output_text.done", **where, text=part["text"], logprobs=[])
    stream.add("response.content_part.done", **where, part=part)


def _add_summary(stream: _Stream, where: Json, part: Json, deltas: list[str]) -> None:
    where, kind = {**where, "summary_index": 0}, "response.reasoning_summary"
    stream.add(f"{kind}_part.added", **where, part={**part, "text": ""})
    for delta in deltas:
        stream.add(f"{kind}_text.delta", **where, delta=delta)
    stream.add(f"{kind}_text.done", **where, text=part["text"])
    stream.add(f"{kind}_part.done", **where, part=part)
