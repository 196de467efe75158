"""Reads Anthropic's events as the items of a response."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.producer.dialects.fence import FenceFilter
from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.from_anthropic import annotation, refusal_in, tool_call
from headgate.producer.dialects.responses.chunk_items import TextItems
from headgate.producer.dialects.responses.item_writer import ItemWriter
from headgate.producer.dialects.responses.items import call_item, flat_notes
from headgate.producer.dialects.responses.sent_item import SentItem
from headgate.shared.job.encoding import dumps


@dataclass(slots=True)
class _TakenBlock:
    """An open block. `start`: the length of its item's text before it."""

    kind: str
    start: int
    item: SentItem | None = None
    given: object = None
    citations: list[Fields] = field(default_factory=list)


class BlockItems:
    """The items of one message. `json_only`: a code fence is no part of the answer."""

    def __init__(self, writer: ItemWriter, texts: TextItems, *, json_only: bool) -> None:
        self._writer = writer
        self._texts = texts
        self._fence = FenceFilter(json_only=json_only)
        self._blocks: dict[int, _TakenBlock] = {}
        self._length = 0

    def take(self, event: Fields) -> None:
        """Send the items and deltas of one event."""
        match event.get("type"):
            case "content_block_start":
                self._open(index_of(event), fields_of(event.get("content_block")))
            case "content_block_delta":
                if (block := self._blocks.get(index_of(event))) is not None:
                    self._add(block, fields_of(event.get("delta")))
            case "content_block_stop":
                if (block := self._blocks.pop(index_of(event), None)) is not None:
                    self._close(block)
            case "message_delta":
                self._texts.say("output_text", self._fence.end())
                self._texts.say("refusal", refusal_in(fields_of(event.get("delta"))) or "")

    def _open(self, index: int, start: Fields) -> None:
        kind = text_of(start.get("type"))
        block = self._blocks[index] = _TakenBlock(kind, self._length)
        block.citations += objects_of(start.get("citations"))
        if kind == "tool_use":
            self._texts.close()
            self._length = 0
            block.given = start.get("input")
            block.item = self._writer.open(call_item(tool_call(start, ""), self._texts.ids))
        else:
            self._add(block, {**start, "type": f"{kind}_delta"})

    def _add(self, block: _TakenBlock, delta: Fields) -> None:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                self._length += len(text)
                self._texts.say("output_text", self._fence.take(text))
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                self._length = 0
                self._texts.say("reasoning_text", text)
            case {"type": "input_json_delta", "partial_json": str(text)} if text:
                if block.item is not None:
                    self._writer.add(block.item, text)
            case {"type": "citations_delta", "citation": dict(citation)}:
                block.citations.append(citation)

    def _close(self, block: _TakenBlock) -> None:
        if block.item is not None:
            if not block.item.pieces:
                self._writer.add(block.item, dumps(block.given or {}).decode())
            self._writer.close(block.item)
        cited = (annotation(one, block.start, self._length) for one in block.citations)
        self._texts.annotate(flat_notes([note for note in cited if note is not None]))
