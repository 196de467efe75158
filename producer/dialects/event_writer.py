"""Writes the events of a stream in Anthropic's form, and knows what it has sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.pieces import is_same_json, replayed, rest_of_json, rest_of_text
from headgate.producer.dialects.server_event import ServerEvent, named_event
from headgate.producer.errors import StreamBroken
from headgate.shared.job.encoding import dumps

_TEXTS = {"text": "text", "thinking": "thinking"}
"""Blocks that grow by pieces of text, and the field that grows."""

_LAST = ("stop_reason", "stop_sequence", "stop_details", "container")
"""Fields of a message that are known at its end only."""

_HEAD = ("id", "type", "role", "model", "content", "usage")
"""Fields of a message that have a place of their own in a stream."""

_COUNTS = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
    "output_tokens_details", "server_tool_use",
)  # fmt: skip
"""Fields of the usage that stand in the event at the end."""


@dataclass(slots=True)
class SentBlock:
    """What was sent of one block.

    `cited`: how many citations. `is_signed`: its signature. `is_strange`: deltas that we do not
    know.
    """

    kind: str
    start: Fields
    pieces: list[str] = field(default_factory=list)
    cited: int = 0
    is_signed: bool = False
    is_strange: bool = False
    is_open: bool = True

    @property
    def written(self) -> str:
        """The text, or the input as JSON, so far."""
        return "".join(self.pieces)

    def add(self, delta: Fields) -> None:
        """Take note of a delta that is sent."""
        match delta:
            case {"type": "text_delta", "text": str(piece)}:
                self.pieces.append(piece)
            case {"type": "thinking_delta", "thinking": str(piece)}:
                self.pieces.append(piece)
            case {"type": "input_json_delta", "partial_json": str(piece)}:
                self.pieces.append(piece)
            case {"type": "citations_delta"}:
                self.cited += 1
            case {"type": "signature_delta"}:
                self.is_signed = True
            case _:
                self.is_strange = True


class EventWriter:
    """The events of one job's answer. `ended`: its reason was sent. `stopped`: nothing follows."""

    def __init__(self, job_id: str) -> None:
        self.started = False
        self.ended = False
        self.stopped = False
        self.blocks: list[SentBlock] = []
        self._job_id = job_id
        self._head: set[str] = set()
        self._events: list[ServerEvent] = []

    def written(self) -> list[ServerEvent]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def pass_on(self, event: Fields, line: bytes) -> None:
        """Send an event as the vendor sent it; raise StreamBroken if the answer began anew."""
        if event.get("type") == "message_start":
            if self.blocks:
                raise StreamBroken(self._job_id)
            if self.started:
                return
        self._note(event)
        self._events.append(ServerEvent(text_of(event.get("type")) or None, line))

    def _note(self, event: Fields) -> None:
        match event.get("type"):
            case "message_start":
                self.started = True
                begun = fields_of(event.get("message"))
                self._head = {name for name, value in begun.items() if value is not None}
            case "content_block_start":
                start = fields_of(event.get("content_block"))
                self.blocks.append(_begun(start))
            case "content_block_delta" if index_of(event) < len(self.blocks):
                self.blocks[index_of(event)].add(fields_of(event.get("delta")))
            case "content_block_stop" if index_of(event) < len(self.blocks):
                self.blocks[index_of(event)].is_open = False
            case "message_delta":
                reason = fields_of(event.get("delta")).get("stop_reason")
                self.ended = self.ended or bool(reason)
            case "message_stop":
                self.stopped = True

    def _send(self, event: Fields) -> None:
        self._note(event)
        self._events.append(named_event(event))

    def start(self, body: Fields) -> None:
        """Send the head of a message, unless one was sent."""
        if not self.started:
            usage = {**fields_of(body.get("usage")), "output_tokens": 0}
            unknown = {name: None for name in _LAST if name in body}
            begun = {**body, "content": [], **unknown, "stop_reason": None, "stop_sequence": None}
            self._send({"type": "message_start", "message": {**begun, "usage": usage}})

    def open_block(self, start: Fields) -> int:
        """Send the start of a block, and return its index."""
        index = len(self.blocks)
        self._send({"type": "content_block_start", "index": index, "content_block": start})
        return index

    def add(self, index: int, kind: str, **fields: object) -> None:
        """Send a delta of a block. `kind`: such as `text_delta`."""
        delta = {"type": kind, **fields}
        self._send({"type": "content_block_delta", "index": index, "delta": delta})

    def close_block(self, index: int) -> None:
        """Send the end of a block, unless it was sent."""
        if self.blocks[index].is_open:
            self._send({"type": "content_block_stop", "index": index})

    def rest(self, content: list[Fields]) -> None:
        """Send what is missing of these blocks; raise StreamBroken if that cannot be."""
        if len(self.blocks) > len(content):
            raise StreamBroken(self._job_id)
        for index, block in enumerate(content):
            if index == len(self.blocks):
                self.open_block(_start_of(block))
            elif not self._goes_on(index, block):
                raise StreamBroken(self._job_id)
            if self.blocks[index].is_open:
                for kind, fields in _rest_of_block(self.blocks[index], block):
                    self.add(index, kind, **fields)
                self.close_block(index)

    def _goes_on(self, index: int, block: Fields) -> bool:
        """Return whether what was sent is the beginning of this block, or all of it if closed."""
        sent = self.blocks[index]
        if any(sent.start.get(name) != block.get(name) for name in ("type", "id", "name")):
            return False
        if sent.kind in _TEXTS or (sent.is_open and "input" in block):
            left = _left_of(sent, block)
            return left is not None if sent.is_open else left == ""
        if "input" in block:
            return is_same_json(sent.written, dumps(block["input"]).decode())
        return not sent.is_open or (sent.start == block and not sent.is_strange)

    def end(self, body: Fields) -> None:
        """Send the reason and the usage of a whole message, and the end of the stream."""
        if not self.ended:
            delta = {name: body[name] for name in _LAST if name in body}
            usage = fields_of(body.get("usage"))
            counts = {name: usage[name] for name in _COUNTS if name in usage}
            newer = {
                name: value
                for name, value in body.items()
                if value is not None and name not in (*_HEAD, *_LAST, *self._head)
            }
            self._send({"type": "message_delta", "delta": delta, "usage": counts, **newer})
        if not self.stopped:
            self._send({"type": "message_stop"})


def _begun(start: Fields) -> SentBlock:
    kind = text_of(start.get("type"))
    block = SentBlock(kind, start, cited=len(objects_of(start.get("citations"))))
    if (text := text_of(start.get(_TEXTS.get(kind, "")))) != "":
        block.pieces.append(text)
    block.is_signed = bool(start.get("signature"))
    return block


def _start_of(block: Fields) -> Fields:
    """Return the block as it stands in the event of its start: without what its deltas add."""
    kind = block.get("type")
    if kind == "text":
        return {**block, "text": "", **({"citations": []} if block.get("citations") else {})}
    if kind == "thinking":
        return {**block, "thinking": "", "signature": ""}
    return {**block, "input": {}} if "input" in block else block


def _left_of(sent: SentBlock, block: Fields) -> str | None:
    """Return what is missing of a block's text or input; None if what was sent is another."""
    if sent.kind in _TEXTS:
        return rest_of_text(sent.written, text_of(block.get(_TEXTS[sent.kind])))
    if "input" in block:
        empty = not block["input"] and not sent.written
        return "" if empty else rest_of_json(sent.written, block["input"])
    return ""


def _rest_of_block(sent: SentBlock, block: Fields) -> Iterator[tuple[str, Fields]]:
    for citation in objects_of(block.get("citations"))[sent.cited :]:
        yield "citations_delta", {"citation": citation}
    left = _left_of(sent, block) or ""
    if sent.kind in _TEXTS:
        name = _TEXTS[sent.kind]
        yield from ((f"{name}_delta", {name: piece}) for piece in replayed(left))
    elif left:
        yield "input_json_delta", {"partial_json": left}
    if sent.kind == "thinking" and not sent.is_signed and block.get("signature"):
        yield "signature_delta", {"signature": block["signature"]}


def joined(content: list[Fields]) -> list[Fields]:
    """Return the blocks of a message as a worker of the release before has streamed them.

    It streamed the text alone: that comes first, in one block, and the calls of tools follow.
    """
    texts = "".join(text_of(block.get("text")) for block in content if block.get("type") == "text")
    calls = [block for block in content if block.get("type") == "tool_use"]
    return [{"type": "text", "text": texts}, *calls] if texts else calls


def is_whole_json(written: str) -> bool:
    """Return whether this is a whole JSON object."""
    try:
        return isinstance(orjson.loads(written), dict)
    except orjson.JSONDecodeError:
        return False
