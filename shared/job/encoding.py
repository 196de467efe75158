"""JSON as it travels: what it can carry, and how large a request may be."""

from __future__ import annotations

import json
from typing import Any

import orjson

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.numbers import has_no_form, is_no_number, place_of

MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""The limit for one request, as JSON."""

SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""The whole numbers that orjson reads and writes exactly. Larger ones need `loads` and `dumps`."""

MAX_DIGITS = 308
"""The most digits of a whole number; orjson reads no longer ones."""

_DIGITS = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_NUMBER = b"0" * 19
"""No whole number of fewer digits is too large for orjson."""


def loads(data: bytes | str) -> Any:
    """Return the value of a JSON text, with whole numbers of any size.

    Raises orjson.JSONDecodeError for what is no JSON. A number with a fraction or an exponent is
    the nearest float.
    """
    value = orjson.loads(data)
    raw = data.encode() if isinstance(data, str) else data
    if _LONG_NUMBER in raw.translate(_DIGITS):
        try:
            return json.loads(raw)
        except RecursionError:  # orjson reads deeper nesting
            return value
    return value


def dumps(value: object, option: int | None = None) -> bytes:
    """Return the value as JSON, with whole numbers of any size; `option` is orjson's.

    Raises TypeError and ValueError for what JSON has no form for.
    """
    try:
        return orjson.dumps(value, option=option)
    except TypeError as error:
        if "64-bit" not in str(error):
            raise
        return orjson.dumps(_spelled(value), option=option)


def _spelled(value: Any) -> Any:
    """Return the value with each whole number of more than 64 bits as the text of its digits."""
    match value:
        case int() if not SMALLEST <= value <= LARGEST:
            if abs(value) >= 10**MAX_DIGITS:
                raise ValueError(f"a whole number has more than {MAX_DIGITS} digits")
            return orjson.Fragment(str(value))
        case dict():
            return {key: _spelled(item) for key, item in value.items()}
        case list() | tuple():
            return [_spelled(item) for item in value]
        case _:
            return value


def json_bytes(value: object) -> bytes:
    """Return the value as JSON in UTF-8.

    Raises InvalidRequest for NaN, infinities, lone surrogates and what JSON has no form for.
    """
    try:
        data = dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise unwritable(value, error) from None
    # orjson writes NaN and infinities as null.
    if b"null" in data and (found := place_of(value, is_no_number)):
        raise InvalidRequest(_field(found[0]), found[1], "is no number in JSON; give one, or none")
    return data


def unwritable(value: object, error: Exception) -> InvalidRequest:
    """Return the error that names the part of the value that JSON has no form for, if one is."""
    field, part = place_of(value, has_no_form) or ("", None)
    what = f"cannot be written as JSON: {error}"
    if isinstance(error, TypeError) and field and not isinstance(part, str):
        what = f"{type(part).__name__} cannot be written as JSON; give a text, a number or a list"
    return InvalidRequest(_field(field), part, what)


def _field(path: str) -> str:
    """Return the path as a caller knows it: without the envelope around the request."""
    return path.removeprefix("request.") or "request"


def has_large_number(value: object) -> bool:
    """Return whether a whole number of more than 64 bits stands in the value."""
    match value:
        case int():
            return not SMALLEST <= value <= LARGEST
        case dict():
            return any(map(has_large_number, value.values()))
        case list() | tuple():
            return any(map(has_large_number, value))
        case _:
            return False


def refuse_oversize(encoded: bytes) -> None:
    """Raise InvalidRequest for a request of more than MAX_REQUEST_BYTES."""
    if len(encoded) > MAX_REQUEST_BYTES:
        raise InvalidRequest(
            "request", f"{len(encoded)} bytes", f"the limit is {MAX_REQUEST_BYTES} bytes (10 MB)"
        )
