"""Translates the first choice of a chat completion into a message of Anthropic's.

Text, refusal, tool calls and reasoning are translated, and annotations become citations. Other
choices, log probabilities and sound have no counterpart.
"""

from __future__ import annotations

import orjson

from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.stop_reasons import stop_reason
from headgate.shared.job.encoding import loads


def message_from_choice(choice: Fields, job_id: str, content: object, calls: object) -> Fields:
    """Return content and stop reason of a message.

    `content` and `calls`: the text and the tool calls as the worker read them.
    """
    told = fields_of(choice.get("message"))
    refusal = text_of(told.get("refusal"))
    blocks: list[Fields] = []
    if reasoning := reasoning_in(told):
        blocks.append({"type": "thinking", "thinking": reasoning, "signature": ""})
    if text := text_of(content) + refusal:
        blocks.append({"type": "text", "text": text, "citations": None, **citations_in(told, text)})
    used = objects_of(calls)
    if called := fields_of(told.get("function_call")):
        used = [*used, {"function": called}]
    blocks += [tool_use(call, job_id, at) for at, call in enumerate(used)]
    return {"content": blocks, **ending(choice.get("finish_reason"), bool(used), refusal)}


def ending(finish: object, calls: bool, refusal: str) -> Fields:
    """Return the fields that say why a message has ended."""
    fields: Fields = {
        "stop_reason": stop_reason(finish, calls=calls, refused=bool(refusal)),
        "stop_sequence": None,
        "stop_details": None,
    }
    if refusal:
        fields["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return fields


def reasoning_in(told: Fields) -> str:
    """Return the reasoning of a message or of a delta, by any of its names.

    Compatible servers call it `reasoning_content` or `reasoning`, and some send both. Mistral's
    models send it as parts of the content.
    """
    for name in ("reasoning_content", "reasoning"):
        if found := text_of(told.get(name)):
            return found
    parts = objects_of(told.get("content"))
    return "".join(
        text_of(thought.get("text"))
        for part in parts
        for thought in objects_of(part.get("thinking"))
    )


def text_in(content: object) -> str:
    """Return the text of a content, which Mistral's reasoning models send in parts."""
    if isinstance(content, list):
        return "".join(text_of(part.get("text")) for part in objects_of(content))
    return text_of(content)


def tool_use(call: Fields, job_id: str, at: int) -> Fields:
    """Return a tool call as a tool_use block; `at`: its place among the calls."""
    name, written = called_in(call)
    given: object = {"input": written} if "custom" in call else _object_in(written)
    return use_block(call_id(call, job_id, at), name, given)


def use_block(made: str, name: str, given: object) -> Fields:
    """Return a tool_use block; `made`: its id."""
    return {
        "type": "tool_use",
        "id": made,
        "name": name,
        "input": given,
        "caller": {"type": "direct"},
    }


def called_in(call: Fields) -> tuple[str, str]:
    """Return name and arguments of a call, or of a piece of one."""
    if "custom" in call:
        custom = fields_of(call["custom"])
        return text_of(custom.get("name")), text_of(custom.get("input"))
    function = fields_of(call.get("function"))
    return text_of(function.get("name")), text_of(function.get("arguments"))


def call_id(call: Fields, job_id: str, at: int) -> str:
    """Return the id of a call; one made of the job's id if the server sent none."""
    return text_of(call.get("id")) or f"toolu_{job_id.replace('-', '')}{at}"


def _object_in(written: str) -> Fields:
    """Return the arguments of a call; none if the token limit has cut them."""
    try:
        return fields_of(loads(written))
    except orjson.JSONDecodeError:
        return {}


def citations_in(told: Fields, text: str) -> Fields:
    """Return the field `citations` of a text block; nothing without annotations."""
    cited = [citation(note, text) for note in objects_of(told.get("annotations"))]
    found = [one for one in cited if one is not None]
    return {"citations": found} if found else {}


def citation(annotation: Fields, text: str) -> Fields | None:
    """Return an annotation of this text as the citation of a web page; None for other kinds."""
    place = fields_of(annotation.get("url_citation"))
    if not isinstance(place.get("url"), str):
        return None
    start, end = place.get("start_index"), place.get("end_index")
    known = isinstance(start, int) and isinstance(end, int)
    return {
        "type": "web_search_result_location",
        "url": place["url"],
        "title": text_of(place.get("title")) or None,
        "encrypted_index": "",
        "cited_text": text[start:end] if known else "",
    }
