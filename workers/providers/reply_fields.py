"""What all dialects share in reading an answer: which headers are kept, and how is counted."""

from __future__ import annotations

from collections.abc import Mapping

from headgate.shared.cost.rates import STANDARD

#: More tokens than this in one reply is a fault of the sender: exact in a float and in a table.
_MOST_TOKENS = 2**40

_KEPT_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-")
_KEPT = frozenset({"x-request-id", "request-id", "retry-after", "retry-after-ms"})


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The rate-limit and request-id headers, names in lower case."""
    kept = {}
    for told, value in headers.items():
        name = told.lower()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES):
            kept[name] = value
    return kept


def count(value: object) -> int:
    """The value as a count of tokens; 0 for all that is none (missing, negative, text, bool)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return int(value) if 0 <= value <= _MOST_TOKENS else 0


def fields_of(value: object) -> dict[str, object]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def tier_of(value: object) -> str:
    """The service tier that a reply names; empty where that is the standard one, or none."""
    named = value.strip().lower()[:64] if isinstance(value, str) else ""
    return "" if named in STANDARD else named
