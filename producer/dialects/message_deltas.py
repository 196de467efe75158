"""Reads Anthropic's events as the deltas of a chat completion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from headgate.producer.dialects.fence import FenceFilter
from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.from_anthropic import annotation, refusal_in, tool_call
from headgate.producer.dialects.stop_reasons import finish_reason
from headgate.shared.job.encoding import dumps


@dataclass(slots=True)
class _Block:
    """An open block. `start`: the length of the text before it. `call`: its place as a call."""

    kind: object
    start: int
    call: int = -1
    given: object = None
    has_input: bool = False
    citations: list[Fields] = field(default_factory=list)


class MessageDeltas:
    """The deltas of one message. `finish`: why it ended. `closed`: calls that are whole."""

    def __init__(self, *, json_only: bool) -> None:
        self.finish: str | None = None
        self.closed: set[int] = set()
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._length = 0
        self._notes: list[Fields] = []
        self._fence = FenceFilter(json_only=json_only)

    def take(self, event: Fields) -> Iterator[Fields]:
        """Yield the deltas of one event, other than the start of the message."""
        match event.get("type"):
            case "content_block_start":
                yield from self._open(index_of(event), fields_of(event.get("content_block")))
            case "content_block_delta":
                if (block := self._blocks.get(index_of(event))) is not None:
                    yield from self._add(block, fields_of(event.get("delta")))
            case "content_block_stop":
                if (block := self._blocks.pop(index_of(event), None)) is not None:
                    yield from self._close(block)
            case "message_delta":
                delta = fields_of(event.get("delta"))
                if delta.get("stop_reason") and self.finish is None:
                    yield from self._end(delta)

    def _open(self, index: int, start: Fields) -> Iterator[Fields]:
        block = self._blocks[index] = _Block(start.get("type"), self._length)
        block.citations += objects_of(start.get("citations"))
        if block.kind == "tool_use":
            block.call, block.given = self._calls, start.get("input")
            self._calls += 1
            yield {"tool_calls": [{"index": block.call, **tool_call(start, "")}]}
        else:
            yield from self._add(block, {**start, "type": f"{block.kind}_delta"})

    def _add(self, block: _Block, delta: Fields) -> Iterator[Fields]:
        match delta:
            case {"type": "text_delta", "text": str(text)} if text:
                self._length += len(text)
                if passed := self._fence.take(text):
                    yield {"content": passed}
            case {"type": "thinking_delta", "thinking": str(text)} if text:
                yield {"reasoning_content": text}
            case {"type": "input_json_delta", "partial_json": str(text)} if text:
                if block.call >= 0:
                    block.has_input = True
                    yield _written(block.call, text)
            case {"type": "citations_delta", "citation": dict(citation)}:
                block.citations.append(citation)

    def _close(self, block: _Block) -> Iterator[Fields]:
        if block.call >= 0:
            self.closed.add(block.call)
            if not block.has_input:
                yield _written(block.call, dumps(block.given or {}).decode())
        cited = (annotation(one, block.start, self._length) for one in block.citations)
        self._notes += [note for note in cited if note is not None]

    def _end(self, delta: Fields) -> Iterator[Fields]:
        """Yield what is only known at the end. Annotations come once: the SDK adds no second."""
        held = self._fence.end()
        if held or not (self._length or self._calls):
            yield {"content": held}
        if self._notes:
            yield {"annotations": self._notes}
        if refusal := refusal_in(delta):
            yield {"refusal": refusal}
        self.finish = finish_reason(text_of(delta.get("stop_reason")))


def _written(call: int, text: str) -> Fields:
    return {"tool_calls": [{"index": call, "function": {"arguments": text}}]}
