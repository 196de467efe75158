"""Cuts a whole answer into pieces, as it might have been streamed."""

from __future__ import annotations

import json
import re

import orjson

_PIECE = re.compile(r"\s*(?:\S{1,40}\s*){1,4}|\s+")
"""A few words, or as much of a longer one."""


def replayed(content: str) -> list[str]:
    """Split a text into pieces of a few words, as it might have been streamed."""
    return _PIECE.findall(content)


def rest_of_text(sent: str, whole: str) -> str | None:
    """Return what is missing of a text; None if what was sent is not its beginning."""
    return whole[len(sent) :] if whole.startswith(sent) else None


def rest_of_json(sent: str, value: object) -> str | None:
    """Return what is missing of a value as JSON, in the way of writing of what was sent.

    None if that is not the beginning of the value in any of the usual ways.
    """
    compact = orjson.dumps(value).decode()
    for written in (compact, json.dumps(value, ensure_ascii=False), json.dumps(value)):
        if written.startswith(sent):
            return written[len(sent) :]
    return None


def rest_of_arguments(sent: str, whole: str) -> str | None:
    """Return what is missing of the arguments of a call, which are JSON; None as above.

    Another vendor's arguments were written anew for the whole answer.
    """
    left = rest_of_text(sent, whole)
    if left is not None:
        return left
    try:
        return rest_of_json(sent, orjson.loads(whole))
    except orjson.JSONDecodeError:
        return None
