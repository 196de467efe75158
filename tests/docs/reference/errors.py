"""docs/reference/error-codes.md, from `shared/errors.py`."""

from __future__ import annotations

from typing import get_args

from headgate.shared.errors import ErrorCode
from tests.docs.reference.markdown import document, item
from tests.docs.reference.notes import ERROR_CODES

INTRO = """
A job that ends without an answer has one of these codes in `error.code` of its result, and in
`code` of `JobFailed`. The failed attempts in `error.attempts` carry codes of the same list.
`retryable` says whether a new job may succeed.
"""


def page() -> str:
    """Return the page."""
    codes = [item(f"`{code}`: {ERROR_CODES.get(code, '')}") for code in get_args(ErrorCode)]
    return document("Error codes", INTRO, "\n".join(codes))
