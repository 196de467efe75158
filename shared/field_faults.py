"""What is wrong with a field that pydantic refused, in the words of our error messages."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_REMEDIES = {
    "bool_parsing": "give true or false",
    "bool_type": "give true or false",
    "dict_type": "give an object",
    "extra_forbidden": "no such field; leave it out",
    "float_parsing": "give a number",
    "float_type": "give a number",
    "finite_number": "give a finite number",
    "greater_than": "give a number above {gt:.15g}",
    "greater_than_equal": "give a number of at least {ge:.15g}",
    "int_from_float": "give a whole number",
    "int_parsing": "give a whole number",
    "int_parsing_size": "give a smaller number",
    "int_type": "give a whole number",
    "invalid_key": "give names that are texts",
    "less_than": "give a number below {lt:.15g}",
    "less_than_equal": "give a number of at most {le:.15g}",
    "list_type": "give a list",
    "literal_error": "use {expected}",
    "model_type": "give an object",
    "string_pattern_mismatch": "leave out the NUL character",
    "string_too_long": "give at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "give a text",
    "string_unicode": "give a text without lone surrogates",
    "too_short": "must not be empty",
    "value_error": "{error}",
}
"""The remedy by pydantic's type of error, with the bounds that pydantic names."""


_LONGEST_NAME = 80
"""The search for a similar name takes time with the square of its length."""


def remedy_of(detail: ErrorDetails) -> str:
    """Return what to do about one error of pydantic."""
    form = _REMEDIES.get(detail["type"])
    if form is None:
        return detail["msg"].replace("Input should be", "give")
    return form.format(**detail.get("ctx", {}))


def path_of(loc: tuple[int | str, ...]) -> str:
    """Return the path of a field as users write it, such as `messages[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def closest(name: str, known: Collection[str]) -> str:
    """Return which known name may be meant; return all known names if none is near."""
    if close := get_close_matches(name[:_LONGEST_NAME], known, 1):
        return f"did you mean {close[0]}?"
    return f"known: {', '.join(sorted(known))}"
