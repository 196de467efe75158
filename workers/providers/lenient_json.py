"""Reads JSON from vendors, also where it breaks the rules: an answer that was paid for is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import orjson

REPLACEMENT = "\ufffd"
"""Stands where a vendor sent half of a surrogate pair or bytes that are not UTF-8."""

_HALVES = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(content: bytes | bytearray, *, keep_halves: bool = False) -> Any:
    """Return the JSON value in these bytes; raises ValueError if there is none.

    orjson reads what is proper. Otherwise a byte order mark is cut, NaN and the infinities become
    null, and halves of surrogate pairs and bytes that are no text become U+FFFD. Control characters
    in strings are kept. Integers beyond 64 bits become floats, as orjson reads them.

    With `keep_halves` the halves stay: the other half may be in the next piece of a stream. Then
    `without_halves` is for the whole.
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
        return value if keep_halves else without_halves(value)
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


def may_have_halves(content: bytes) -> bool:
    """Return whether these bytes of JSON may hold half of a surrogate pair."""
    return _ESCAPED_HALF.search(content) is not None


def without_halves(value: Any) -> Any:
    """Return the value with surrogate pairs joined, and without halves, which no UTF-8 can hold."""
    if isinstance(value, str):
        if value.isascii() or _HALVES.search(value) is None:
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [without_halves(item) for item in value]
    if isinstance(value, dict):
        return {without_halves(name): without_halves(item) for name, item in value.items()}
    return value


class PairedText:
    """Hands text on in whole characters: the first half of a surrogate pair waits for the other."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._half = ""

    def __call__(self, text: str) -> None:
        """Hand on a piece, but for a half at its end."""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        if text := text.removesuffix(self._half):
            self._on_text(without_halves(text))

    def end(self) -> None:
        """Hand on what is left: no piece follows."""
        if self._half:
            self._on_text(REPLACEMENT)
            self._half = ""
