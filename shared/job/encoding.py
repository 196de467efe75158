"""JSON as it travels: what it can carry, and how large a request may be."""

from __future__ import annotations

import math

import orjson

from headgate.shared.errors import InvalidRequest

MAX_REQUEST_BYTES = 10 * 1024 * 1024
"""The limit for one request, as JSON."""


def json_bytes(value: object) -> bytes:
    """Return the value as JSON in UTF-8.

    Raises InvalidRequest for NaN, infinities, lone surrogates and what JSON has no form for.
    """
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequest("request", None, f"cannot be written as JSON: {error}") from None
    # orjson writes NaN and infinities as null.
    if b"null" in data and not _is_finite(value):
        raise InvalidRequest("request", "NaN", "JSON has no NaN and no infinity; give a number")
    return data


def refuse_oversize(encoded: bytes) -> None:
    """Raise InvalidRequest for a request of more than MAX_REQUEST_BYTES."""
    if len(encoded) > MAX_REQUEST_BYTES:
        raise InvalidRequest(
            "request", f"{len(encoded)} bytes", f"the limit is {MAX_REQUEST_BYTES} bytes (10 MB)"
        )


def _is_finite(value: object) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list() | tuple():
            return all(map(_is_finite, value))
        case _:
            return True
