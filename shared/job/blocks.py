"""Walks through the content of messages: parts in OpenAI's form, and blocks in Anthropic's. Pure.

Anthropic nests blocks: the result of a tool and a document may hold texts and images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Block = Mapping[str, Any]


def blocks_in(content: object) -> Iterator[Block]:
    """Yield each part of a message's content, and the blocks inside it."""
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        yield block
        yield from blocks_in(block.get("content"))
        source = block.get("source")
        if isinstance(source, dict):
            yield from blocks_in(source.get("content"))


def all_blocks(messages: Iterable[Mapping[str, Any]] | None) -> Iterator[Block]:
    """Yield the parts of all these messages, and the blocks inside them."""
    for message in messages or ():
        if isinstance(content := message.get("content"), list):
            yield from blocks_in(content)


def texts_in(content: object) -> Iterator[str]:
    """Yield all texts of a content: its own text, and those of its blocks, to any depth."""
    if isinstance(content, str):
        yield content
    for block in blocks_in(content):
        source = block.get("source")
        inner = source if isinstance(source, dict) and source.get("type") == "text" else {}
        for text in (block.get("text"), block.get("content"), inner.get("data")):
            if isinstance(text, str):
                yield text
