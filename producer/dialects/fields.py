"""Reads values of JSON that a vendor or a caller sent, whatever they are."""

from __future__ import annotations

import math
from typing import Any

Fields = dict[str, Any]

_MOST = 2**40
"""A larger count is read as this one. It is exact in a float."""


def fields_of(value: object) -> Fields:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_of(value: object) -> list[Fields]:
    """Return the JSON objects of a list; none if the value is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return the value if it is a text, else an empty one."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int:
    """Return the value as a count; 0 if it is none (missing, negative, text, bool)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(min(value, _MOST)) if 0 <= value < math.inf else 0


def index_of(value: Fields) -> int:
    """Return the field `index`; 0 if it is no number."""
    index = value.get("index")
    return index if isinstance(index, int) else 0
