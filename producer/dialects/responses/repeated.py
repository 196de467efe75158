"""What a response repeats of its request, with OpenAI's defaults for what the request leaves out.

Source: OpenAI's reference of the Responses API, and that of Open Responses for the two penalties.
"""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of

_DEFAULTS: Fields = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}

_ONLY_IF_GIVEN = ("prompt", "image")

_TEXT: Fields = {"format": {"type": "text"}, "verbosity": "medium"}
_FUNCTION: Fields = {"description": None, "parameters": None, "strict": True}


def repeated(asked: Fields) -> Fields:
    """Return the fields of a response that repeat its request; `asked`: the params of that."""
    fields = {
        name: default if asked.get(name) is None else asked[name]
        for name, default in _DEFAULTS.items()
    }
    fields |= {name: asked[name] for name in _ONLY_IF_GIVEN if asked.get(name) is not None}
    if fields["service_tier"] == "auto":
        fields["service_tier"] = "default"
    return {
        **fields,
        "background": asked.get("background") is True,
        "conversation": _conversation(asked.get("conversation")),
        "reasoning": {"effort": None, "summary": None, **fields_of(asked.get("reasoning"))},
        "text": _text(fields_of(asked.get("text"))),
        "tools": repeated_tools(asked.get("tools")),
    }


def _text(given: Fields) -> Fields:
    form = fields_of(given.get("format"))
    if form.get("type") == "json_schema":
        form = {"description": None, "strict": False, **form}
    return {**_TEXT, **given, "format": form or _TEXT["format"]}


def repeated_tools(tools: object) -> list[Fields]:
    """Return the tools of a request as a response repeats them."""
    return [_tool(tool) for tool in objects_of(tools)]


def _tool(tool: Fields) -> Fields:
    return {**_FUNCTION, **tool} if tool.get("type") == "function" else tool


def _conversation(given: object) -> Fields | None:
    """Return the conversation as a response names it: the request may give its id alone."""
    name = text_of(given) or text_of(fields_of(given).get("id"))
    return {"id": name} if name else None
