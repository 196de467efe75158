"""The `custom_id` of a line on record, where it is a text; a number comes back as a number."""

from __future__ import annotations

import re

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.encoding import LARGEST, SMALLEST

_NUMBER = "\x1f"
"""In front of a number on record. No text that is given begins with it."""


def on_record(given: object) -> str:
    """Return the id as the record holds it; raise InvalidRequest for a bad one."""
    if isinstance(given, int) and not isinstance(given, bool) and SMALLEST <= given <= LARGEST:
        return f"{_NUMBER}{given}"
    if not isinstance(given, str) or not given or "\0" in given or given.startswith(_NUMBER):
        remedy = "use a non-empty text without control characters, or a whole number"
        raise InvalidRequest("custom_id", given, remedy)
    return given


def as_given(text: str) -> str | int:
    """Return the id as the input has it; with the number of a sample it is a text."""
    if not text.startswith(_NUMBER):
        return text
    number = text.removeprefix(_NUMBER)
    return int(number) if re.fullmatch(r"-?\d+", number) else number
