"""A request in the form of OpenAI's Responses as one in the form of chat completions. Pure.

Workers translate with it for providers that have no Responses, and everything that only looks at a
request (estimates, upper bounds, routing, cache rules) reads this one form. What has no counterpart
is in `beyond_chat.py`; such a request is never sent in this form.

* `instructions` become a first message of the role `system`. Messages of the role `developer` get
  the role `system`, too: servers that only know chat completions may not know the other.
* Items become messages, see `items.py`.
* `max_output_tokens` becomes `max_completion_tokens`, `text` becomes `response_format` and
  `verbosity`, `reasoning.effort` becomes `reasoning_effort`.
* Functions keep their fields under `function`. Of `allowed_tools` only those tools are offered.
* `top_logprobs`, and the wish to include them, ask for `logprobs`.
* `metadata` and `store` are for the vendor's records, and left out: Headgate's record has both.
  So are hints to OpenAI's caches, and params that are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.shared.job.request import Request
from headgate.shared.responses.items import messages_of

Fields = dict[str, Any]

LOGPROBS = "message.output_text.logprobs"
"""What `include` names for the probabilities of the tokens of an answer."""

SAME = (
    "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "service_tier",
)  # fmt: skip
"""Params with the same name and meaning in both forms."""


def chat_request(request: Request) -> Request:
    """Return the request in the form of chat completions; one in another form as it is."""
    if request.dialect != "responses":
        return request
    return _with(request, messages=_messages(request), params=chat_params(request.params))


def readable(request: Request) -> Request:
    """Return the request in a form to look at, not to send; one in another form as it is.

    It is that of chat completions, and beside it holds the items and tools that this form has
    nothing like. So nothing of the prompt is missed.
    """
    if request.dialect != "responses":
        return request
    params = chat_params(request.params)
    if tools := request.params.get("tools"):
        params["tools"] = tools
    return _with(request, messages=_messages(request, whole=True), params=params)


def _with(request: Request, *, messages: list[Fields], params: Fields) -> Request:
    """Return a request of chat completions. It is not checked again: it goes through no door."""
    fields = {"messages": messages, "params": params, "prompt": None, "input": None}
    return request.model_copy(update={**fields, "dialect": "openai"})


def _messages(request: Request, *, whole: bool = False) -> list[Fields]:
    given = request.prompt if request.input is None else request.input
    items: list[Any] = given if isinstance(given, list) else []
    if isinstance(given, str):
        items = [{"role": "user", "content": given}]
    instructions = request.params.get("instructions")
    head = [{"role": "system", "content": instructions}] if instructions else []
    return head + messages_of(items, whole=whole)


def chat_params(given: Fields) -> Fields:
    """Return the params of a chat completion for those of Responses."""
    given = {name: value for name, value in given.items() if value is not None}
    params: Fields = {name: given[name] for name in SAME if name in given}
    if (most := given.get("max_output_tokens")) is not None:
        params["max_completion_tokens"] = most
    if (effort := _fields(given.get("reasoning")).get("effort")) is not None:
        params["reasoning_effort"] = effort
    text = _fields(given.get("text"))
    if (form := _format(text.get("format"))) is not None:
        params["response_format"] = form
    if (verbosity := text.get("verbosity")) is not None:
        params["verbosity"] = verbosity
    tools, choice = _tools(given)
    if tools:
        params["tools"] = tools
        if choice is not None:
            params["tool_choice"] = choice
    else:
        params.pop("parallel_tool_calls", None)
    if given.get("top_logprobs") or LOGPROBS in _items(given.get("include")):
        params["logprobs"] = True
        if given.get("top_logprobs"):
            params["top_logprobs"] = given["top_logprobs"]
    return params


def _format(form: object) -> Fields | None:
    """Return `response_format` for `text.format`; None for plain text."""
    match form:
        case {"type": "json_object"}:
            return {"type": "json_object"}
        case {"type": "json_schema", **rest}:
            return {"type": "json_schema", "json_schema": _given(rest)}
    return None


def _tools(params: Fields) -> tuple[list[Fields], Any]:
    """Return the functions that may be called, and which of them must be."""
    tools = [tool for tool in _items(params.get("tools")) if is_function(tool)]
    choice = params.get("tool_choice")
    match choice:
        case {"type": "function", "name": name}:
            choice = {"type": "function", "function": {"name": name}}
        case {"type": "allowed_tools", "mode": mode, "tools": allowed}:
            names = {one.get("name") for one in _items(allowed) if isinstance(one, dict)}
            tools = [tool for tool in tools if tool.get("name") in names]
            choice = mode
    return [{"type": "function", "function": _function(tool)} for tool in tools], choice


def is_function(tool: object) -> bool:
    """Return whether this is a function that the caller runs."""
    return isinstance(tool, dict) and tool.get("type") == "function"


def _function(tool: Fields) -> Fields:
    return _given(
        {name: tool.get(name) for name in ("name", "description", "parameters", "strict")}
    )


def _given(fields: Mapping[Any, Any]) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def _fields(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
