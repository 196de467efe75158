"""Cuts a whole answer into pieces, as it might have been streamed."""

from __future__ import annotations

import json
import re

import orjson

from headgate.shared.job.encoding import dumps, loads

_PIECE = re.compile(r"\s*(?:\S{1,40}\s*){1,4}|\s+")
"""A few words, or as much of a longer one."""

_STRING_OR_BLANKS = re.compile(r'("(?:[^"\\]|\\.)*"?)|\s+')
"""A string of JSON, which the end of the text may have cut, or blanks outside of one."""


def replayed(content: str) -> list[str]:
    """Split a text into pieces of a few words, as it might have been streamed."""
    return _PIECE.findall(content)


def rest_of_text(sent: str, whole: str) -> str | None:
    """Return what is missing of a text; None if what was sent is not its beginning."""
    return whole[len(sent) :] if whole.startswith(sent) else None


def rest_of_json(sent: str, value: object) -> str | None:
    """Return what is missing of a value as JSON, whatever blanks stand in what was sent.

    None if that is not the beginning of the value.
    """
    begun = _STRING_OR_BLANKS.sub(lambda found: found[1] or "", sent)
    for written in (dumps(value).decode(), json.dumps(value, separators=(",", ":"))):
        if written.startswith(begun):
            return written[len(begun) :]
    return None


def rest_of_arguments(sent: str, whole: str) -> str | None:
    """Return what is missing of the arguments of a call, which are JSON; None as above.

    Another vendor's arguments were written anew for the whole answer.
    """
    left = rest_of_text(sent, whole)
    if left is not None:
        return left
    try:
        return rest_of_json(sent, loads(whole))
    except orjson.JSONDecodeError:
        return None


def is_same_json(one: str, other: str) -> bool:
    """Return whether two texts are JSON of the same value; empty arguments are an empty object."""
    try:
        return bool(loads(one or "{}") == loads(other or "{}"))
    except orjson.JSONDecodeError:
        return False
