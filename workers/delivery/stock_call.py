"""Reads what a stock Celery message carries beside its request: arguments and callbacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headgate.shared.errors import InvalidRequest, UnreadableMessage

LISTS = ("callbacks", "errbacks", "chain")
"""Parts of a message's `embed` that are lists of signatures. `chord` is one signature."""


def canvas_of(
    headers: Mapping[str, Any], properties: Mapping[str, Any], embed: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return what Celery is to send when the task ends, and what it needs of the message for it.

    Return None for a task that nothing follows. Raise UnreadableMessage for anything else.
    """
    parts = {name: embed[name] for name in (*LISTS, "chord") if embed.get(name)}
    if not parts:
        return None
    for name in LISTS:
        if not isinstance(parts.get(name, []), list):
            raise UnreadableMessage(f"embed.{name} is not a list of signatures")
    if not isinstance(parts.get("chord", {}), dict):
        raise UnreadableMessage("embed.chord is not a signature")
    if "chord" in parts and not _is_name(headers.get("group")):
        raise UnreadableMessage("embed.chord is set, but headers.group is not the chord's id")
    index = headers.get("group_index")
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise UnreadableMessage("headers.group_index is not a whole number")
    kept = {"group_index": index, "priority": properties.get("priority")}
    for name in ("root_id", "stamps", "stamped_headers"):
        kept[name] = headers.get(name)
    return parts | {name: value for name, value in kept.items() if value is not None}


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()


def request_fields(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the request that these arguments of the task make together.

    An object is fields of a request. A chain puts the result of the task before in front: a text is
    the prompt, and a result of `headgate.run` counts as its content. Beside `messages` such a text
    is the last message. Raises InvalidRequest.
    """
    fields: dict[str, Any] = {}
    texts: list[str] = []
    for given in (*args, kwargs):
        if (text := _text_of(given)) is not None:
            texts.append(text)
            continue
        if not isinstance(given, Mapping):
            remedy = "give an object with prompt or messages, or a text"
            raise InvalidRequest("request", given, remedy)
        for name in given:
            if name in fields:
                raise InvalidRequest(str(name), given[name], "it is given twice; give it once")
        fields.update(given)
    if len(texts) > 1:
        raise InvalidRequest("prompt", texts[1], "only one argument may be a text")
    if texts and isinstance(messages := fields.get("messages"), list):
        fields["messages"] = [*messages, {"role": "user", "content": texts[0]}]
    elif texts and "prompt" in fields:
        raise InvalidRequest("prompt", fields["prompt"], "a text is given as well; give one")
    elif texts:
        fields["prompt"] = texts[0]
    return fields


def _text_of(given: object) -> str | None:
    """Return the text of a text, or of a result of this task; None for anything else."""
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping) and {"id", "status", "trace_id"} <= given.keys():
        content = given.get("content")
        if isinstance(content, str):
            return content
        raise InvalidRequest("request", "a result without content", "send a text or a request")
    return None
