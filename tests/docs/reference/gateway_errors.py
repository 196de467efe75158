"""docs/reference/gateway-errors.md, from `producer/dialects/errors.py`."""

from __future__ import annotations

from headgate.producer.dialects import errors
from tests.docs.reference.markdown import document

INTRO = """
How the [gateway](../gateway.md) answers a call that has no answer. The first column is our code. A
job's own codes are in [error codes](error-codes.md). `status`, `type` and `code` are what a caller
of OpenAI's dialect gets. The last columns are for Anthropic's dialect. `again` says whether asking
again can help; if not, `x-should-retry` is `false`.
"""


def page() -> str:
    """Return the page."""
    names = ("code", "status", "`type`", "`code`", "status", "`type`", "again")
    rows = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for code, kind in sorted(errors.ERRORS.items(), key=lambda item: (item[1].status, item[0])):
        cells = (
            f"`{code}`", str(errors.status_of(code, "openai")), f"`{kind.openai_type}`",
            f"`{kind.openai_code or code}`", str(errors.status_of(code, "anthropic")),
            f"`{kind.at_anthropic}`", "yes" if kind.may_retry else "no",
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    return document("Errors of the gateway", INTRO, "\n".join(rows))
