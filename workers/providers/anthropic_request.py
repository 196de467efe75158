"""Makes the body of Anthropic's Messages API of a request.

A request in Anthropic's form passes as it is. Only `max_tokens` is put in where it is absent and
lowered where the model writes less. Names of beta features and the version of the API become
headers.

Of a request in OpenAI's form, this changes besides the names (each rule has its test):

* All `system` and `developer` messages become `system`, in their order. If there are no other
  messages, they become the user's turn.
* Neighbours of one role become one turn. A first turn of the assistant gets a user's turn before
  it. Empty texts are left out. Blanks at the end of a last assistant turn are cut. Anthropic
  refuses all four.
* Tools and tool choices, tool calls and tool results, images and PDF files are translated. Parts,
  tools and params already in Anthropic's form (`input_schema`, `thinking`, `stop_sequences`,
  `system`, ...) and params that neither vendor knows pass through as they are.
* `max_tokens` is the model's maximum if absent, and never above it.
* `temperature` is at most 1 at Anthropic and at most 2 at OpenAI. A value above 1 becomes 1, so
  that a fallback does not fail. Newer models refuse it together with `top_p`: the one that is 1,
  the default, is left out.
* `response_format`: a schema goes to `output_config.format`. Anthropic lacks `json_object`: it
  becomes an instruction in `system`, and a code fence around the answer is removed.
* `user` or `safety_identifier` becomes `metadata.user_id`; `service_tier` `default` becomes
  `standard_only`.
* `reasoning_effort` becomes `thinking` and `output_config.effort` (`reasoning.py`). `thinking` is
  left out where Claude refuses it: if a tool must be called, and before 4.6 in the middle of a turn
  with tools that has no thinking blocks.
* Params of OpenAI that are null ask for nothing and are left out; others are sent as null.
* Params of OpenAI without a counterpart never come here, unless they ask for nothing
  (`shared/routing/dialects.py`). They and hints to OpenAI's own caches are left out.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

from headgate.shared.job.encoding import loads
from headgate.shared.job.request import Request
from headgate.shared.job.request_checks import BETAS, VERSION
from headgate.shared.routing.dialects import HINTS, ONLY_OPENAI
from headgate.workers.providers.reasoning import put_thinking

Fields = dict[str, Any]

_HEADERS = frozenset({BETAS, VERSION})

#: Params of OpenAI that are left out: they ask for nothing here.
DROPPED = frozenset({*ONLY_OPENAI, *HINTS})

#: Params that OpenAI's API knows; null means the same there as leaving them out.
NULLABLE = DROPPED | {
    "max_completion_tokens", "max_tokens", "metadata", "parallel_tool_calls", "reasoning_effort",
    "response_format", "safety_identifier", "service_tier", "stop", "temperature", "tool_choice",
    "tools", "top_p", "user",
}  # fmt: skip

OUR_VERSION = "2023-06-01"
"""The version of Anthropic's API that is asked for where the caller names none.

The next version, 2026-10-21, refuses `temperature`, `top_p` and `top_k`; the SDK would ask for it.
"""

JSON_ONLY = "Answer with one JSON object and nothing else: no explanation, no code fence."
_OPENING = "(The conversation begins with the assistant.)"
_NO_TEXT = "(no text)"


def own_body(request: Request, model: str, max_output_tokens: int) -> Fields:
    """Return the body of a request in Anthropic's form: what the caller gave, in its order.

    Only thinking that Claude did not sign is left out.
    """
    params = {name: value for name, value in request.params.items() if name not in _HEADERS}
    wanted = params.get("max_tokens")
    if max_output_tokens > 0:
        params["max_tokens"] = (
            max_output_tokens if wanted is None else min(wanted, max_output_tokens)
        )
    return {"model": model, "messages": _signed(request.chat()), **params}


def _signed(messages: list[Fields]) -> list[Fields]:
    """Return the messages without thinking that Claude did not sign, which it refuses.

    It comes from another vendor's answer, which the gateway gave in Anthropic's form. A message
    that holds nothing else is left out, too: Anthropic refuses empty ones.
    """
    if not any(map(_has_unsigned, messages)):
        return messages
    left = (
        {**one, "content": [block for block in one["content"] if not _is_unsigned(block)]}
        if _has_unsigned(one)
        else one
        for one in messages
    )
    return [one for one in left if one.get("content") != []]


def _has_unsigned(message: Fields) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(map(_is_unsigned, content))


def _is_unsigned(block: object) -> bool:
    match block:
        case {"type": "thinking", "signature": ""}:
            return True
    return False


def own_headers(request: Request) -> dict[str, str]:
    """Return the version of the API and the names of beta features, as the caller gave them."""
    given = request.params if request.dialect == "anthropic" else {}
    headers = {"anthropic-version": given.get(VERSION) or OUR_VERSION}
    if names := given.get(BETAS):
        headers["anthropic-beta"] = ",".join(names)
    return headers


def messages_body(request: Request, model: str, max_output_tokens: int) -> Fields:
    """Return the body of POST /v1/messages; never raises for a checked Request."""
    given = request.params.items()
    params = {name: value for name, value in given if value is not None or name not in NULLABLE}
    body: Fields = {"model": model, **_limits(params, max_output_tokens)}
    system = [params.pop("system")] if params.get("system") is not None else []
    format_ = _format(params)
    turns, texts = turns_of(request.chat())
    system += texts
    if format_ is JSON_ONLY:
        system.append(JSON_ONLY)
    if not turns:
        turns, system = [{"role": "user", "content": _joined(system) or _NO_TEXT}], []
    elif turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": _OPENING})
    body["messages"] = turns
    if system:
        body["system"] = params["system"] = _joined(system)
    if isinstance(format_, dict):
        config = params.get("output_config")
        params["output_config"] = {"format": format_} | (config if isinstance(config, dict) else {})
    _tools(params)
    forced = _is_forced(params.get("tool_choice"))
    amid = _is_amid_tools(turns)
    put_thinking(params, model, body["max_tokens"], is_forced=forced, is_amid_tools=amid)
    _person(params)
    body.update((name, value) for name, value in params.items() if name not in DROPPED)
    return body


def _limits(params: Fields, max_output_tokens: int) -> Fields:
    """Take `max_tokens`, `temperature` and `stop_sequences` out of `params` and return them."""
    old, new = params.pop("max_tokens", None), params.pop("max_completion_tokens", None)
    wanted = new or old or max_output_tokens
    limits: Fields = {"max_tokens": min(wanted, max_output_tokens) if max_output_tokens else wanted}
    stop = params.pop("stop", None)
    if stop:
        limits["stop_sequences"] = [stop] if isinstance(stop, str) else stop
        params.pop("stop_sequences", None)
    if "temperature" in params:
        temperature = min(params.pop("temperature"), 1)
        if temperature != 1 or params.get("top_p", 1) == 1:
            limits["temperature"] = temperature
            params.pop("top_p", None)
    return limits


def _format(params: Fields) -> Fields | str | None:
    """Return Anthropic's output format for `response_format`, or JSON_ONLY, or None."""
    match params.pop("response_format", None):
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"type": "json_schema", "schema": schema}
        case {"type": "json_object" | "json_schema"}:
            return JSON_ONLY
    return None


def _tools(params: Fields) -> None:
    """Translate `tools`, `tool_choice` and `parallel_tool_calls` in place."""
    if isinstance(params.get("tools"), list):
        params["tools"] = [_tool(tool) for tool in params["tools"]]
    parallel = params.pop("parallel_tool_calls", None)
    choice = params.get("tool_choice")
    if parallel is False and choice is None and params.get("tools"):
        choice = "auto"
    match choice:
        case "auto" | "none":
            choice = {"type": choice}
        case "required":
            choice = {"type": "any"}
        case {"type": "function", "function": {"name": name}}:
            choice = {"type": "tool", "name": name}
    if choice is not None:
        params["tool_choice"] = choice
        if parallel is False and isinstance(choice, dict) and choice.get("type") != "none":
            params["tool_choice"] = {**choice, "disable_parallel_tool_use": True}


def _tool(tool: Any) -> Any:
    match tool:
        case {"type": "function", "function": {"name": name, **rest}, **outer}:
            schema = rest.pop("parameters", None) or {"type": "object"}
            others = {key: value for key, value in rest.items() if value is not None}
            return {"name": name, "input_schema": schema, **others, **_marks(outer)}
    return tool


def _is_forced(choice: object) -> bool:
    return isinstance(choice, dict) and choice.get("type") in ("any", "tool")


def _is_amid_tools(turns: list[Fields]) -> bool:
    """Return whether the last turn has a tool's result, and none before it tells its thinking."""
    if len(turns) < 2 or not _has(turns[-1], "tool_result"):
        return False
    return not (_has(turns[-2], "thinking") or _has(turns[-2], "redacted_thinking"))


def _has(turn: Fields, kind: str) -> bool:
    content = turn["content"]
    return isinstance(content, list) and any(block.get("type") == kind for block in content)


def _person(params: Fields) -> None:
    """Translate `user`, `safety_identifier`, `metadata` and `service_tier` in place."""
    user, identifier = params.pop("user", None), params.pop("safety_identifier", None)
    if not params.get("metadata"):
        params.pop("metadata", None)
        if user or identifier:
            params["metadata"] = {"user_id": user or identifier}
    if params.get("service_tier") == "default":
        params["service_tier"] = "standard_only"


def _joined(system: list[Any]) -> str | list[Any]:
    """Join the system prompt into one text, or into blocks if some part is a list of blocks."""
    if all(isinstance(item, str) for item in system):
        return "\n\n".join(system)
    blocks: list[Any] = []
    for item in system:
        blocks += item if isinstance(item, list) else [{"type": "text", "text": item}]
    return blocks


def turns_of(messages: Iterable[Fields]) -> tuple[list[Fields], list[Any]]:
    """Return turns that alternate, and the system's texts (or lists of blocks) in their order."""
    turns: list[Fields] = []
    system: list[Any] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role in ("system", "developer"):
            if isinstance(content, str):
                system += [content] if content.strip() else []
            elif blocks := _blocks(content):
                plain = all(block.keys() == {"type", "text"} for block in blocks)
                system += [block["text"] for block in blocks] if plain else [blocks]
            continue
        if content is None and isinstance(message.get("refusal"), str):
            content = message["refusal"]
        blocks = _result(message) if role == "tool" else _blocks(content) + _calls(message)
        if not blocks and role == "assistant":
            continue
        role = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        turn["content"] = _plain(turn["content"])
    if turns and turns[-1]["role"] == "assistant":
        _without_blanks_at_end(turns[-1])
    return turns, system


def _plain(blocks: list[Fields]) -> list[Fields] | str:
    """Return a single bare text as a string, and a placeholder for an empty turn."""
    if not blocks:
        return _NO_TEXT
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


def _without_blanks_at_end(turn: Fields) -> None:
    content = turn["content"]
    if isinstance(content, str):
        turn["content"] = content.rstrip()
    elif content[-1].get("type") == "text" and isinstance(content[-1].get("text"), str):
        content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}


def _blocks(content: object) -> list[Fields]:
    """Return the content as blocks; blank texts are left out."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content.strip() else []
    if not isinstance(content, list):
        return []
    blocks = [_block(part) for part in content if isinstance(part, dict)]
    return [block for block in blocks if not _empty(block)]


def _empty(block: Fields) -> bool:
    text = block.get("text")
    return block.get("type") == "text" and not (isinstance(text, str) and text.strip())


def _block(part: Fields) -> Fields:
    """Return one part as a block; unknown parts pass through."""
    marks = _marks(part)
    match part:
        case {"type": "image_url", "image_url": {"url": str(url)}} | {
            "type": "image_url",
            "image_url": str(url),
        }:
            return {"type": "image", "source": _source(url), **marks}
        case {"type": "file", "file": {"file_data": str(url), **file}}:
            title = {"title": file["filename"]} if file.get("filename") else {}
            return {"type": "document", "source": _file(_source(url)), **title, **marks}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text, **marks}
    return part


def _source(url: str) -> Fields:
    """Return the source of an image or a file: a data URL in base64, or an address."""
    found = re.match(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,", url)
    if found is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": found[1], "data": url[found.end() :]}


def _marks(part: Mapping[Any, Any]) -> Fields:
    return {"cache_control": part["cache_control"]} if "cache_control" in part else {}


def _file(source: Fields) -> Fields:
    """Return the source of a file: plain text is given as a text, all else as it is."""
    if source.get("media_type") != "text/plain":
        return source
    try:
        text = base64.b64decode(source["data"], validate=True).decode()
    except ValueError:
        return source
    return {"type": "text", "media_type": "text/plain", "data": text}


def _calls(message: Fields) -> list[Fields]:
    """Return the assistant's tool calls as tool_use blocks."""
    calls = message.get("tool_calls")
    if message.get("role") != "assistant" or not isinstance(calls, list):
        return []
    blocks = []
    for call in calls:
        match call:
            case {"function": {"name": name, **rest}}:
                used = {"name": name, "input": _arguments(rest.get("arguments"))}
                blocks.append({"type": "tool_use", "id": _call_id(call.get("id")), **used})
    return blocks


def _arguments(arguments: object) -> Fields:
    """Return the arguments as an object. A text that is no JSON object is kept as a text in one."""
    if isinstance(arguments, str):
        try:
            arguments = loads(arguments or "{}")
        except ValueError:
            return {"arguments": arguments}
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}


def _result(message: Fields) -> list[Fields]:
    """Return the result of a tool as a tool_result block."""
    content = message.get("content")
    result: Fields = {"type": "tool_result", "tool_use_id": _call_id(message.get("tool_call_id"))}
    blocks = _blocks(content)
    if blocks:
        result["content"] = content if isinstance(content, str) else blocks
    return [result]


def _call_id(value: object) -> str:
    """Return the id in the alphabet that Anthropic accepts. Equal ids stay equal."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", str(value)) or "_"
