"""The items of a Responses input as messages of a chat completion. Pure.

* Messages keep their role; `developer` becomes `system`. Their parts change names.
* `function_call` items become the `tool_calls` of a message of the assistant: of the one before, if
  there is one. A `function_call_output` becomes a message of the role `tool`.
* That message holds a text only. Images and files in an output follow in the next message of the
  user, behind a line that names the call.
* Reasoning of earlier answers is left out: only the model that wrote it can read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headgate.shared.job.encoding import dumps

Fields = dict[str, Any]

SEE_NEXT = "(The result is in the next message.)"
NO_TEXT = "(no text)"

LEFT_OUT = frozenset({"reasoning"})
"""Items that only the model that wrote them can read."""

OUTPUT_TEXTS = frozenset({"output_text", "input_text", "text", "summary_text", "reasoning_text"})


def messages_of(items: Iterable[Fields], *, whole: bool = False) -> list[Fields]:
    """Return the messages; `whole`: with items that have no counterpart, as JSON."""
    messages: list[Fields] = []
    shown: list[Fields] = []  # images and files of results, until all results have been given
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call_output":
            result, more = _result(item)
            messages.append(result)
            shown += more
            continue
        if shown:
            messages.append({"role": "user", "content": shown})
            shown = []
        if kind == "message":
            _add_message(messages, item)
        elif kind == "function_call":
            _add_call(messages, item)
        elif whole:
            messages.append({"role": "user", "content": _json(item)})
    if shown:
        messages.append({"role": "user", "content": shown})
    return messages


def _add_message(messages: list[Fields], item: Fields) -> None:
    role = "system" if item.get("role") == "developer" else item.get("role")
    content = item.get("content")
    if isinstance(content, list):
        parts = [part_of(part) for part in content if isinstance(part, dict)]
        texts = [part["text"] for part in parts if part.get("type") == "text"]
        plain = len(texts) == len(parts) and (len(texts) == 1 or role != "user")
        content = "".join(texts) if plain else parts
    messages.append({"role": role, "content": content})


def part_of(part: Fields) -> Fields:
    """Return a part of a message of Responses as a part of a chat completion's."""
    match part:
        case {"type": kind, "text": text} if kind in OUTPUT_TEXTS:
            return {"type": "text", "text": text}
        case {"type": "refusal", "refusal": text}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            detail = part.get("detail")
            image = {"url": url, "detail": detail} if detail not in (None, "auto") else {"url": url}
            return {"type": "image_url", "image_url": image}
        case {"type": "input_file"}:
            names = ("file_data", "filename", "file_id")
            return {"type": "file", "file": {n: part[n] for n in names if part.get(n) is not None}}
    return part


def _add_call(messages: list[Fields], item: Fields) -> None:
    """Add a call to the assistant's turn; a turn of its own if none is there."""
    function = {"name": item.get("name"), "arguments": item.get("arguments")}
    call = {"id": item.get("call_id"), "type": "function", "function": function}
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant":
        last = {"role": "assistant", "content": None}
        messages.append(last)
    last.setdefault("tool_calls", []).append(call)


def _result(item: Fields) -> tuple[Fields, list[Fields]]:
    """Return the message of a tool, and the parts for the user's message: images and files."""
    output, call = item.get("output"), item.get("call_id")
    shown: list[Fields] = []
    if isinstance(output, list):
        parts = [part_of(part) for part in output if isinstance(part, dict)]
        texts = [str(part["text"]) for part in parts if part.get("type") == "text"]
        shown = [part for part in parts if part.get("type") != "text"]
        output = "\n\n".join(texts) or (SEE_NEXT if shown else NO_TEXT)
    if shown:
        head = {"type": "text", "text": f"From the result of the tool call {call}:"}
        shown = [head, *shown]
    return {"role": "tool", "tool_call_id": call, "content": output}, shown


def _json(value: object) -> str:
    try:
        return dumps(value).decode()
    except (TypeError, ValueError):
        return repr(value)
