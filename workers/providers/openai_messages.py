"""Translates messages in Anthropic's form into the messages of a chat completion. Pure.

* Neighbours of one role are one turn, as Anthropic reads them.
* The system prompt becomes a first message of the role `system`; its texts are joined.
* `tool_use` blocks become `tool_calls`. Each `tool_result` becomes a message of the role `tool`,
  which stands right behind the calls, as OpenAI wants it.
* A message of that role holds a text only. Images and files in the result of a tool follow in the
  next message of the user, behind a line that names the call.
* `is_error` becomes the beginning of the text, because OpenAI has no such field.
* Documents become files if they are bytes, and texts if they are texts.
* Thinking, citations of earlier answers, and marks of Anthropic's cache are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from headgate.shared.job.encoding import dumps

Fields = dict[str, Any]

NO_TEXT = "(no text)"
SEE_NEXT = "(The result is in the next message.)"
ERROR = "Error: "

LONGEST_ID = 40
"""OpenAI refuses longer ids of tool calls."""


def chat_messages(messages: Iterable[Fields], system: object) -> list[Fields]:
    """Return the messages in OpenAI's form; `system` is Anthropic's param."""
    made = _of_system(system)
    for role, turn in groupby(messages, lambda message: message.get("role")):
        contents = [message.get("content") for message in turn]
        content = contents[0] if len(contents) == 1 else [b for c in contents for b in _blocks(c)]
        match role:
            case "system":
                made += _of_system(content)
            case "assistant":
                made += _of_assistant(content)
            case _:
                made += _of_user(content)
    return made


def _of_system(content: object) -> list[Fields]:
    text = "\n\n".join(_texts(content))
    return [{"role": "system", "content": text}] if text else []


def _of_assistant(content: object) -> list[Fields]:
    """Return the turn with its calls; nothing if it holds only what is left out."""
    text = "".join(_texts(content))
    calls = [_call(block) for block in _blocks(content) if block.get("type") == "tool_use"]
    if calls:
        return [{"role": "assistant", "content": text or None, "tool_calls": calls}]
    return [{"role": "assistant", "content": text}] if text else []


def _call(block: Fields) -> Fields:
    arguments = dumps(block.get("input") or {}).decode()
    function = {"name": block.get("name"), "arguments": arguments}
    return {"id": _id(block.get("id")), "type": "function", "function": function}


def _of_user(content: object) -> list[Fields]:
    """Return the results of tools in the turn, and behind them what else it holds."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results: list[Fields] = []
    parts: list[Fields] = []
    for block in _blocks(content):
        if block.get("type") == "tool_result":
            result, shown = _result(block)
            results.append(result)
            parts += shown
        else:
            parts += _parts(block)
    if not parts:
        return results
    alone = len(parts) == 1 and parts[0]["type"] == "text"
    return [*results, {"role": "user", "content": parts[0]["text"] if alone else parts}]


def _result(block: Fields) -> tuple[Fields, list[Fields]]:
    """Return the message of a tool, and the parts for the user's message: images and files."""
    content, call = block.get("content"), _id(block.get("tool_use_id"))
    if isinstance(content, str):
        texts, shown = [content], []
    else:
        parts = [part for one in _blocks(content) for part in _parts(one)]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        shown = [part for part in parts if part["type"] != "text"]
    text = "\n\n".join(text for text in texts if text) or (SEE_NEXT if shown else NO_TEXT)
    if block.get("is_error") and not text.lower().startswith("error"):
        text = ERROR + text
    if shown:
        shown.insert(0, {"type": "text", "text": f"From the result of the tool call {call}:"})
    return {"role": "tool", "tool_call_id": call, "content": text}, shown


def _parts(block: Fields) -> list[Fields]:
    """Return a block as parts of a message of the user."""
    match block:
        case {"type": "text", "text": str(text)}:
            return [{"type": "text", "text": text}]
        case {"type": "image", "source": source}:
            return [{"type": "image_url", "image_url": {"url": _url(source)}}]
        case {"type": "document", "source": source}:
            return _document(block, source)
    return []


def _url(source: Fields) -> str:
    """Return the address of an image or a file, or its bytes as a data URL."""
    if source.get("type") == "url":
        return str(source.get("url"))
    return f"data:{source.get('media_type')};base64,{source.get('data')}"


def _document(block: Fields, source: Fields) -> list[Fields]:
    """Return a document: a file with its context before it, or texts with title and context."""
    title, context = block.get("title"), block.get("context")
    if source.get("type") == "base64":
        name = title or "document"
        name = name if name.lower().endswith(".pdf") else f"{name}.pdf"
        file = {"type": "file", "file": {"filename": name, "file_data": _url(source)}}
        return [{"type": "text", "text": context}, file] if context else [file]
    head = [text for text in (title, context) if text]
    inner = source.get("data") if source.get("type") == "text" else source.get("content")
    if isinstance(inner, str):
        return [{"type": "text", "text": "\n\n".join([*head, inner])}]
    parts = [part for one in _blocks(inner) for part in _parts(one)]
    return [{"type": "text", "text": "\n\n".join(head)}, *parts] if head else parts


def _texts(content: object) -> list[str]:
    """Return the texts of a content; an empty text is none."""
    texts = (block.get("text") for block in _blocks(content) if block.get("type") == "text")
    return [text for text in texts if isinstance(text, str) and text]


def _blocks(content: object) -> list[Fields]:
    """Return the blocks of a content; a text is one of them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, dict)]


def _id(value: object) -> str:
    """Return the id of a tool call, short enough for OpenAI. Equal ids stay equal."""
    given = str(value)
    if len(given) <= LONGEST_ID:
        return given
    return "call_" + hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:32]
