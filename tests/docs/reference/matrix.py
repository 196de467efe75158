"""docs/reference/fields.md: what becomes of each field of a request, from the tested matrix."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.shared.routing.dialects import ONLY_ANTHROPIC
from tests.docs.reference.markdown import document, filled, items
from tests.support import request_matrix
from tests.support.anthropic_matrix import FORM_MESSAGES, FORM_PARAMS, FormRow
from tests.support.request_matrix import Row

INTRO = """
A request has the form of OpenAI's chat completions. With `dialect` `anthropic` its messages and
params have the form of Anthropic's Messages API, see [below](#requests-in-anthropics-form). With
`responses` they have
[that of OpenAI's Responses](../routing-and-fallback.md#requests-in-the-form-of-responses).

A request is sent whole. What stands in `params`, in the messages, or in the `body` of a batch line
reaches the vendor as it is. Null values and whole numbers of any size are kept. A number with a
fraction keeps its value, and may be spelled anew.

A test sends each field below to a vendor that records every byte. This page is made from that test.
"""

DIALECTS = (
    "OpenAI's dialect sends every field as it is: to OpenAI and to all compatible servers.",
    "Anthropic's dialect passes a field, translates it, leaves it out where it asks for nothing, "
    "or refuses it by name. A refused field is never dropped: the job is refused at submit.",
    "A model whose dialect cannot carry a field is no fallback for the request. `auto` does not "
    "choose it.",
)

EXCEPTIONS = """
Headgate sets `model`, `stream` and `stream_options` itself. It lowers `max_tokens` to what the
model can write.
OpenAI itself gets it as `max_completion_tokens`, other servers as `max_tokens`. The marks
`cache_control` are not sent to OpenAI itself, which refuses them.

The fields `user` and `metadata` of Headgate are never sent. The `user` and `metadata` of a batch
line's `body` are the vendor's. They are sent, and name our user and metadata, too.
"""

FORM = """
At Anthropic a request with `dialect` `anthropic` passes as it is: messages and params, in their
order, also fields that are newer than Headgate. `max_tokens` is the model's maximum if it is
absent, and lowered to it if it is above. The names in the list `anthropic_beta` are sent as the
header of that name. They are no part of the body.

OpenAI's dialect translates it. Thinking, marks of the cache and other hints are left out. What has
no counterpart is refused by name, also for a named model.
"""

EMBEDDINGS = """
Anthropic has no embeddings. OpenAI's dialect sends each of these as it is. Tokens are counted
exactly. The vectors in `embeddings` are lists of numbers, also with `encoding_format` `base64`.
"""


def page() -> str:
    """Return the page."""
    return document(
        "Fields that are sent",
        INTRO,
        items(DIALECTS),
        f"## Exceptions\n\n{_paragraphs(EXCEPTIONS)}",
        f"## Parameters of OpenAI\n\n{_table(request_matrix.OPENAI_PARAMS)}",
        f"## Parameters of Anthropic\n\n{_only_anthropic()}\n\n"
        f"{_table(request_matrix.ANTHROPIC_PARAMS)}",
        f"## Other parameters\n\n{_table(request_matrix.ANY_PARAMS)}",
        f"## Messages\n\n{_table(request_matrix.MESSAGES)}",
        f"## Requests in Anthropic's form\n\n{_paragraphs(FORM)}\n\n"
        f"{_form_table([*FORM_PARAMS, *FORM_MESSAGES])}",
        f"## Embeddings\n\n{_paragraphs(EMBEDDINGS)}\n\n{_embeddings()}",
    )


def _paragraphs(text: str) -> str:
    return "\n\n".join(filled(" ".join(block.split())) for block in text.strip().split("\n\n"))


def _only_anthropic() -> str:
    names = ", ".join(f"`{name}`" for name in sorted(ONLY_ANTHROPIC))
    return filled(f"A request with one of these has no fallback of OpenAI's dialect: {names}.")


def _table(rows: Sequence[Row]) -> str:
    head = ["| field | OpenAI's dialect | Anthropic's dialect |", "|---|---|---|"]
    lines = [f"| {row.name} | passes | {_outcome(row)} |" for row in rows]
    return "\n".join(head + lines)


def _form_table(rows: Sequence[FormRow]) -> str:
    head = ["| field | Anthropic's dialect | OpenAI's dialect |", "|---|---|---|"]
    lines = [f"| {row.name} | {_at_anthropic(row)} | {_outcome(row)} |" for row in rows]
    return "\n".join(head + lines)


def _at_anthropic(row: FormRow) -> str:
    return "translated: a header" if "anthropic_beta" in row.name else "passes"


def _outcome(row: Row | FormRow) -> str:
    return f"{row.outcome}: {row.words}" if row.words else row.outcome


def _embeddings() -> str:
    head = ["| field | OpenAI's dialect |", "|---|---|"]
    return "\n".join(head + [f"| {row.name} | passes |" for row in request_matrix.EMBEDDINGS])
