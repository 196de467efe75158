"""The stream of one job's answer for a caller of Anthropic's dialect."""

from __future__ import annotations

from headgate.producer.dialects.anthropic import head, message
from headgate.producer.dialects.chunk_blocks import ChunkBlocks
from headgate.producer.dialects.errors import error_body
from headgate.producer.dialects.event_writer import EventWriter, joined
from headgate.producer.dialects.fields import Fields, objects_of, text_of
from headgate.producer.dialects.openai_stream import EventKind, parsed
from headgate.producer.dialects.server_event import ServerEvent, named_event
from headgate.producer.dialects.usage import anthropic_usage, read_openai
from headgate.producer.errors import StreamBroken
from headgate.shared.job.result import Result


class MessageStream:
    """Events for Anthropic's clients."""

    def __init__(self, job_id: str, model: str) -> None:
        self._job_id = job_id
        self._model = model
        self._kind: EventKind | None = None
        self._writer = EventWriter(job_id)
        self._blocks = ChunkBlocks(self._writer, job_id)
        self._ended = False

    def begin(self) -> list[ServerEvent]:
        """Return no events: all of them wait for the answer."""
        return []

    def take(self, kind: EventKind, line: bytes) -> list[ServerEvent]:
        """Return the events for one event; raise StreamBroken if the answer began anew."""
        if kind != self._kind and self._writer.blocks:
            raise StreamBroken(self._job_id)
        self._kind = kind
        if kind == "anthropic":
            self._writer.pass_on(parsed(line), line)
        elif kind == "text":
            self._start({})
            self._blocks.say("text", line.decode())
        else:
            chunk = parsed(line)
            if objects_of(chunk.get("choices")):
                self._start(chunk)
                self._blocks.take(chunk)
        return self._writer.written()

    def _start(self, chunk: Fields) -> None:
        if not self._writer.started:
            usage = anthropic_usage(read_openai(chunk.get("usage")), chunk.get("service_tier"))
            model = text_of(chunk.get("model")) or self._model
            self._writer.start({**head(self._job_id, model), "usage": usage})

    def end(self, result: Result) -> list[ServerEvent]:
        """Return what is missing of the answer, its usage and the end of the stream.

        Raises StreamBroken if what was sent is not the beginning of the answer.
        """
        if self._ended:
            return []
        writer = self._writer
        body = message(result.as_json())
        writer.start(body)
        if self._blocks.finish is None and not writer.ended:
            content = objects_of(body.get("content"))
            writer.rest(joined(content) if self._kind == "text" else content)
        writer.end(body)
        self._ended = True
        return writer.written()

    def fail(self, code: str, message: str, http_status: int = 500) -> list[ServerEvent]:
        """Return the error that ends the stream."""
        if self._ended:
            return []
        self._ended = True
        body = error_body("anthropic", code, message, status=http_status)
        return [named_event({"type": body["type"], "error": body["error"]})]
