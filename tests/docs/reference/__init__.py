"""The generated half of the docs: one page per subject, each made from the code itself.

`python -m tests.docs` writes the pages below `docs/reference/`; a test says when they are stale.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.docs.reference import (
    commands,
    errors,
    fields,
    gateway_errors,
    keys,
    matrix,
    python_api,
    settings,
    tables,
)

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings.page,
    "command-line.md": commands.page,
    "python-api.md": python_api.page,
    "request-and-result.md": fields.page,
    "fields.md": matrix.page,
    "error-codes.md": errors.page,
    "gateway-errors.md": gateway_errors.page,
    "redis-keys.md": keys.page,
    "tables.md": tables.page,
}
"""File name below `docs/reference/` to the function that makes its text."""
