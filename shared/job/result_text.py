"""The result as text for its row: JSON in which a long answer stands once.

The vendor's message repeats the answer. In the row its place in the message is empty, and
`message_text_at` is the path to it. A release that does not know these fields skips them.
"""

from __future__ import annotations

from typing import Any

import orjson

from headgate.shared.job.result import Result

SHORTEST = 100
"""Texts of fewer characters stand twice: the path would take as much."""

Path = list[str | int]


def encode_result(result: Result) -> str:
    """Return the result as text."""
    fields = result.as_json()
    path = _place(result.message, result.content)
    if path is not None and result.message is not None:
        fields["message"] = _with(result.message, path, None)
        fields["message_text_at"] = path
    return orjson.dumps(fields).decode()


def decode_fields(text: str) -> dict[str, Any]:
    """Return the fields of the result, as `Result.as_json` returns them."""
    fields: dict[str, Any] = orjson.loads(text)
    path = fields.pop("message_text_at", None)
    if path is not None:
        fields["message"] = _with(fields["message"], path, fields["content"])
    return fields


def decode_result(text: str) -> Result:
    """Return the result that `encode_result` wrote, or an older release."""
    return Result.from_json(decode_fields(text))


def _place(message: dict[str, Any] | None, content: str | None) -> Path | None:
    """Return the path to the content in the vendor's message; None if it stands nowhere whole."""
    if content is None or len(content) < SHORTEST:
        return None
    match message:
        case {"choices": [{"message": {"content": str(text)}}, *_]} if text == content:
            return ["choices", 0, "message", "content"]
        case {"content": [*blocks]}:
            for at, block in enumerate(blocks):
                if isinstance(block, dict) and block.get("text") == content:
                    return ["content", at, "text"]
        case {"output": [*items]}:
            return _place_in_output(items, content)
    return None


def _place_in_output(items: list[Any], content: str) -> Path | None:
    """Return the path to the content in the output of a Response."""
    for at, item in enumerate(items):
        match item:
            case {"type": "message", "content": [{"text": str(text)}, *_]} if text == content:
                return ["output", at, "content", 0, "text"]
    return None


def _with(value: Any, path: Path, leaf: str | None) -> Any:
    """Return a copy of the value with `leaf` at the path; all else is shared with the original."""
    if not path:
        return leaf
    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], leaf)
    return copy
