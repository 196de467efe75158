"""Reads the fields and headers that the answers of all dialects share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson

from headgate.shared.cost.rates import STANDARD

#: More tokens than this in one reply are read as this many. It is exact in a float, and a table can
#: add up millions of it.
_MOST_TOKENS = 2**40

_LIMIT_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-")
_ID_AND_RETRY = frozenset({"x-request-id", "request-id", "retry-after", "retry-after-ms"})


def limit_and_id_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the rate-limit and request-id headers, with names in lower case."""
    found = {}
    for header, value in headers.items():
        name = header.lower()
        if name in _ID_AND_RETRY or name.startswith(_LIMIT_PREFIXES):
            found[name] = value
    return found


def count(value: object) -> int:
    """Return the value as a count of tokens; 0 if it is none (missing, negative, text, bool)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(min(value, _MOST_TOKENS)) if 0 <= value < math.inf else 0


def fields_of(value: object) -> dict[str, object]:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def tier_of(value: object) -> str:
    """Return the service tier that a reply names; empty if that is the standard tier or none."""
    named = value.strip().lower()[:64] if isinstance(value, str) else ""
    return "" if named in STANDARD else named


DEEPEST = 200
"""Levels of nesting that are kept. orjson writes 254, and results and cache entries add some."""


def storable(decoded: dict[str, Any]) -> dict[str, Any]:
    """Return the vendor's answer as it is; where it is nested too deep to be stored, null."""
    try:
        orjson.dumps(_in_levels(decoded, 254 - DEEPEST))
    except TypeError:
        return {name: _cut(value, DEEPEST - 1) for name, value in decoded.items()}
    return decoded


def _in_levels(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


def _cut(value: Any, levels: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if levels == 0:
        return None
    if isinstance(value, list):
        return [_cut(item, levels - 1) for item in value]
    return {name: _cut(item, levels - 1) for name, item in value.items()}
