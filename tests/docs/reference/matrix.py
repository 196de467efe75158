"""docs/reference/fields.md: what becomes of each field of a request, from the tested matrix."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.shared.routing.dialects import ONLY_ANTHROPIC
from tests.docs.reference.markdown import document, filled, items
from tests.support import request_matrix
from tests.support.request_matrix import Row

INTRO = """
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


def _outcome(row: Row) -> str:
    return f"{row.outcome}: {row.words}" if row.words else row.outcome


def _embeddings() -> str:
    head = ["| field | OpenAI's dialect |", "|---|---|"]
    return "\n".join(head + [f"| {row.name} | passes |" for row in request_matrix.EMBEDDINGS])
