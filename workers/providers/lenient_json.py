"""Reads JSON from vendors, also where it breaks the rules: an answer that was paid for is kept."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

REPLACEMENT = "\ufffd"
"""Stands where a vendor sent half of a surrogate pair or bytes that are not UTF-8."""

_HALVES = re.compile("[\ud800-\udfff]")


def read_json(content: bytes) -> Any:
    """Return the JSON value in these bytes; raises ValueError if there is none.

    orjson reads what is proper. Otherwise a byte order mark is cut, NaN and the infinities become
    null, and halves of surrogate pairs and bytes that are no text become U+FFFD. Control characters
    in strings are kept. Integers beyond 64 bits become floats, as orjson reads them.
    """
    try:
        return orjson.loads(content)
    except ValueError:
        pass
    text = content.decode(json.detect_encoding(content), "replace").removeprefix("\ufeff")
    try:
        value = json.loads(
            text, strict=False, parse_constant=_null, parse_float=_float, parse_int=_int
        )
        return _whole(value)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _null(_constant: str) -> None:
    return None


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if abs(number) != float("inf") else None


def _int(digits: str) -> int | float | None:
    if len(digits) > 20:  # longer than any of 64 bits; Python refuses to read the longest
        return _float(digits)
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(number)


def _whole(value: Any) -> Any:
    """Return the value without halves of surrogate pairs, which no UTF-8 can hold."""
    if isinstance(value, str):
        return value if value.isascii() else _HALVES.sub(REPLACEMENT, value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value
