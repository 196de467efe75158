"""Numbers of numpy and pandas as plain ones, and the place of what JSON has no form for."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

MAX_DEPTH = 100
"""How deep a fault is looked for."""


def plain(value: Any) -> Any:
    """Return the value with numpy's numbers and arrays as Python's own.

    It does nothing in a process that has not imported numpy, and does not look into messages.
    """
    if "numpy" not in sys.modules:
        return value
    return _plain(value, MAX_DEPTH)


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, str | bool) or type(value) in (int, float):
        return value
    if isinstance(value, Mapping):
        if depth == 0:
            return value
        texts = ("prompt", "messages")
        return {k: v if k in texts else _plain(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        if depth == 0 or _is_plain_list(value):
            return value
        return [_plain(item, depth - 1) for item in value]
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _is_plain_list(values: list[Any] | tuple[Any, ...]) -> bool:
    """Return whether the first value shows that there is nothing to do: the texts of an input."""
    return isinstance(values, list) and bool(values) and type(values[0]) in (str, int, float)


def whole(value: object) -> object:
    """Return a float without a fraction as a whole number, which pandas makes of them."""
    is_whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
    return int(value) if is_whole else value  # type: ignore[call-overload]


def place_of(value: object, is_fault: Callable[[object], bool]) -> tuple[str, object] | None:
    """Return the path of the first part that is at fault, and that part; None if there is none."""
    return next(_places(value, is_fault, "", MAX_DEPTH, set()), None)


def _places(
    value: object, is_fault: Callable[[object], bool], path: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, object]]:
    """Yield the parts at fault; `seen`: the ids of lists and dicts, which may hold each other."""
    if depth == 0 or id(value) in seen:
        return
    if isinstance(value, dict | list | tuple):
        seen.add(id(value))
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    yield path, key
                    return
                inner = f"{path}.{key}" if path else key
                yield from _places(item, is_fault, inner, depth - 1, seen)
        case list() | tuple():
            for place, item in enumerate(value):
                yield from _places(item, is_fault, f"{path}[{place}]", depth - 1, seen)
        case _ if is_fault(value):
            yield path, value


def is_no_number(value: object) -> bool:
    """Return whether this is NaN or an infinity."""
    return isinstance(value, float) and not math.isfinite(value)


def has_no_form(value: object) -> bool:
    """Return whether JSON has no form for this value."""
    try:
        orjson.dumps(value)
    except (TypeError, ValueError):
        return not isinstance(value, int)
    return False
