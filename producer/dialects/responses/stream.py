"""The stream of one job's answer for a caller of OpenAI's Responses API."""

from __future__ import annotations

from headgate.producer.dialects.errors import kind_of
from headgate.producer.dialects.fields import Fields, fields_of, objects_of, text_of
from headgate.producer.dialects.openai_stream import parsed
from headgate.producer.dialects.responses.block_items import BlockItems
from headgate.producer.dialects.responses.chunk_items import ChunkItems, TextItems
from headgate.producer.dialects.responses.item_writer import ItemWriter
from headgate.producer.dialects.responses.response import head, response
from headgate.producer.dialects.server_event import ServerEvent, named_event
from headgate.producer.errors import StreamBroken
from headgate.shared.job.result import Result

_LIFE = frozenset({
    "response.created", "response.queued", "response.in_progress", "response.completed",
    "response.incomplete", "response.failed", "error",
})  # fmt: skip
"""Events of a vendor's that ours stand for: they have the whole response in them."""


class ResponseStream:
    """Events for callers of the Responses API. `asked`: model and params of the request.

    Each event has a number, beginning with 0; it is the same however often the stream is read.
    """

    def __init__(self, job_id: str, asked: Fields) -> None:
        self._job_id = job_id
        self._asked = asked
        self._kind: str | None = None
        self._writer = ItemWriter(job_id)
        texts = TextItems(self._writer, job_id)
        form = fields_of(fields_of(asked.get("text")).get("format"))
        self._texts = texts
        self._chunks = ChunkItems(self._writer, texts)
        is_json = form.get("type") == "json_object"
        self._blocks = BlockItems(self._writer, texts, json_only=is_json)
        self._is_running = False
        self._ended = False

    def begin(self) -> list[ServerEvent]:
        """Return the events before the job runs: its creation, and of a background job the wait.

        A background job's are sent before a worker has it, so that the caller has its id at once.
        """
        self._create()
        return self._writer.written()

    def _create(self) -> None:
        if self._writer.number:
            return
        waits = self._asked.get("background") is True
        body = head(self._job_id, self._asked, "queued" if waits else "in_progress")
        self._writer.send("response.created", response=body)
        if waits:
            self._writer.send("response.queued", response=body)

    def _run(self) -> None:
        if not self._is_running:
            self._create()
            self._is_running = True
            self._writer.send("response.in_progress", response=head(self._job_id, self._asked))

    def take(self, kind: str, line: bytes) -> list[ServerEvent]:
        """Return the events for one event; raise StreamBroken if the answer began anew."""
        writer = self._writer
        if kind != self._kind and writer.items:
            raise StreamBroken(self._job_id)
        self._kind = kind
        self._run()
        if kind == "text":
            self._texts.say("output_text", line.decode())
            return writer.written()
        event = parsed(line)
        if kind == "openai":
            self._chunks.take(event)
        elif kind == "anthropic":
            if event.get("type") == "message_start" and writer.items:
                raise StreamBroken(self._job_id)
            self._blocks.take(event)
        elif event.get("type") == "response.created" and writer.items:
            raise StreamBroken(self._job_id)
        elif (name := text_of(event.get("type"))) and name not in _LIFE:
            writer.pass_on(event)
        return writer.written()

    def end(self, result: Result) -> list[ServerEvent]:
        """Return what is missing of the answer, and the end of the stream, however the job ended.

        Raises StreamBroken if what was sent is not the beginning of the answer.
        """
        if self._ended:
            return []
        body = response(result.as_json(), self._asked)
        if result.status == "succeeded":
            self._run()
            items = objects_of(body["output"])
            body["output"] = self._writer.rest(_joined(items) if self._kind == "text" else items)
        else:
            self._create()
            body["output"] = [_cut(one.as_item()) for one in self._writer.items]
        known = body["status"] if body["status"] in ("completed", "incomplete") else "failed"
        self._writer.send(f"response.{known}", response=body)
        self._ended = True
        return self._writer.written()

    def fail(self, code: str, message: str, http_status: int = 500) -> list[ServerEvent]:
        """Return the error that ends the stream, but not the job.

        It has the number of the event before it: a caller goes on after that.
        """
        if self._ended:
            return []
        self._ended = True
        kind = kind_of(code, http_status)
        number = max(self._writer.number - 1, 0)
        error = {"code": kind.openai_code or code, "message": message, "param": kind.param}
        return [named_event({"type": "error", **error, "sequence_number": number})]


def _cut(item: Fields) -> Fields:
    """Return an item of an answer that broke off."""
    is_open = item.get("status") == "in_progress"
    return {**item, "status": "incomplete"} if is_open else item


def _joined(items: list[Fields]) -> list[Fields]:
    """Return the items of an answer whose text alone was streamed: all text is in the first one."""
    texts = [item for item in items if item["type"] == "message"]
    others = [item for item in items if item["type"] != "message"]
    if not texts:
        return items
    parts = [part for item in texts for part in objects_of(item["content"])]
    written = [part for part in parts if part["type"] == "output_text"]
    joined = {**written[0], "text": "".join(p["text"] for p in written)} if written else None
    content = [*([joined] if joined else []), *(p for p in parts if p["type"] != "output_text")]
    return [{**texts[0], "content": content}, *others]
