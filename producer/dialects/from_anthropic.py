"""Translates a message of Anthropic's into the choice of a chat completion.

Text, tool calls and thinking are translated, and citations of web pages become annotations.
Blocks of tools that ran at Anthropic have no counterpart, and neither have other citations.
"""

from __future__ import annotations

from typing import Any

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.stop_reasons import finish_reason
from headgate.shared.job.encoding import dumps


def choice_from_message(message: Fields, content: object, calls: object) -> Fields:
    """Return the one choice of a chat completion.

    `content` and `calls`: the text and the tool calls as the worker read them, in OpenAI's form.
    """
    blocks = objects_of(message.get("content"))
    told: Fields = {"role": "assistant", "content": content, "refusal": refusal_in(message)}
    if reasoning := "".join(text_of(block.get("thinking")) for block in blocks):
        told["reasoning_content"] = reasoning
    if notes := annotations_in(blocks):
        told["annotations"] = notes
    if calls:
        told["tool_calls"] = calls
    finish = finish_reason(message.get("stop_reason"))
    return {"index": 0, "message": told, "logprobs": None, "finish_reason": finish}


def refusal_in(message: Fields) -> str | None:
    """Return Anthropic's explanation of a refusal; None without one.

    `message`: a message, or the delta at the end of its stream.
    """
    return text_of(fields_of(message.get("stop_details")).get("explanation")) or None


def tool_call(block: Fields, arguments: str | None = None) -> Fields:
    """Return a tool_use block as a tool call; `arguments` overrides its input."""
    if arguments is None:
        arguments = dumps(block.get("input") or {}).decode()
    function = {"name": text_of(block.get("name")), "arguments": arguments}
    return {"id": text_of(block.get("id")), "type": "function", "function": function}


def annotations_in(blocks: list[Fields]) -> list[Fields]:
    """Return the annotations of the joined text of a message."""
    notes: list[Fields] = []
    start = 0
    for block in blocks:
        text = text_of(block.get("text")) if block.get("type") == "text" else ""
        end = start + len(text)
        cited = (annotation(one, start, end) for one in objects_of(block.get("citations")))
        notes += [note for note in cited if note is not None]
        start = end
    return notes


def annotation(citation: Fields, start: int, end: int) -> Fields | None:
    """Return the citation of a web page as an annotation of the text from `start` to `end`.

    None for a citation of anything else.
    """
    url: Any = citation.get("url", citation.get("source"))
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    title = text_of(citation.get("title"))
    place = {"start_index": start, "end_index": end, "url": url, "title": title}
    return {"type": "url_citation", "url_citation": place}
