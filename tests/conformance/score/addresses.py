"""The addresses that are scored: their categories, examples, and what the gateway does itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

_turns = count(1)

ITS_OWN = {
    "chat": {
        "stream": "asked for by the worker as it needs; the chunks are scored",
        "stream_options": "the gateway ends the stream with the usage that was asked for",
    },
    "embeddings": {"encoding_format": "the gateway packs the vectors itself"},
    "responses": {
        "stream": "asked for by the worker as it needs; the events are scored",
        "stream_options": "the gateway sends no obfuscation",
        "background": "the queue is the background; no vendor is asked for it",
        "previous_response_id": "ours is mapped to the vendor's; another one gets 404",
        "conversation": "ours is mapped to the vendor's; another one gets 404",
    },
}  # fmt: skip
"""Properties at the root of a request that no provider gets: the gateway does what they ask."""

IDS = frozenset({
    "id", "model", "created", "created_at", "completed_at", "sequence_number", "response_id",
    "item_id", "usage", "object", "total_tokens", "background", "previous_response_id", "metadata",
    "response", "shutdown_date", "status",
})  # fmt: skip
"""Properties of an answer that may be ours: they count if the type is right."""


@dataclass(frozen=True)
class Address:
    """An address: its category, and values for the root of the least body to it."""

    path: str
    category: str
    root: Mapping[str, Any] = field(default_factory=dict)

    def base(self) -> dict[str, Any]:
        """Return the values of the root, in a question that no call has asked before."""
        words = f"question {next(_turns)}"
        given: dict[str, Any] = {"model": self.root["model"]}
        if self.category == "chat":
            return {**given, "messages": [{"role": "user", "content": words}]}
        return {**given, "input": words}


POSTED = [
    Address("/chat/completions", "chat", {"model": "gpt-4o-mini"}),
    Address("/embeddings", "embeddings", {"model": "text-embedding-3-small"}),
    Address("/moderations", "moderations", {"model": "omni-moderation-latest"}),
    Address("/responses", "responses", {"model": "gpt-4o-mini"}),
]
