"""The stream of one job's answer for a caller of OpenAI's dialect."""

from __future__ import annotations

from typing import Literal

import orjson

from headgate.producer.dialects.chunk_writer import ChunkWriter
from headgate.producer.dialects.errors import error_body
from headgate.producer.dialects.fields import Fields, fields_of, text_of
from headgate.producer.dialects.message_deltas import MessageDeltas
from headgate.producer.dialects.openai import completion
from headgate.producer.dialects.server_event import ServerEvent, chunk_event
from headgate.producer.dialects.usage import openai_tier
from headgate.producer.errors import StreamBroken
from headgate.shared.job.result import Result

EventKind = Literal["openai", "anthropic", "responses", "text"]


def parsed(line: bytes) -> Fields:
    """Return an event of a vendor's; an empty one if it is no JSON object."""
    try:
        return fields_of(orjson.loads(line))
    except orjson.JSONDecodeError:
        return {}


class ChunkStream:
    """Chunks for OpenAI's clients. `json_only`: a code fence is no part of the answer."""

    def __init__(
        self, job_id: str, model: str, *, include_usage: bool, json_only: bool = False
    ) -> None:
        self._job_id = job_id
        self._json_only = json_only
        self._kind: EventKind | None = None
        self._writer = ChunkWriter(job_id, model, include_usage=include_usage)
        self._deltas: MessageDeltas | None = None
        self._ended = False

    def begin(self) -> list[ServerEvent]:
        """Return no events: all of them wait for the answer."""
        return []

    def take(self, kind: EventKind, line: bytes) -> list[ServerEvent]:
        """Return the chunks for one event; raise StreamBroken if the answer began anew."""
        writer = self._writer
        if kind != self._kind and writer.has_content:
            raise StreamBroken(self._job_id)
        self._kind = kind
        if kind == "openai":
            writer.pass_on(parsed(line), line)
        elif kind == "text":
            writer.start()
            writer.delta({"content": line.decode()})
        else:
            self._translate(parsed(line))
        return writer.written()

    def _translate(self, event: Fields) -> None:
        writer = self._writer
        if event.get("type") == "message_start":
            if writer.has_content:
                raise StreamBroken(self._job_id)
            message = fields_of(event.get("message"))
            tier = openai_tier(message.get("usage"))
            writer.start(text_of(message.get("model")), service_tier=tier)
            self._deltas = None
        if self._deltas is None:
            self._deltas = MessageDeltas(json_only=self._json_only)
        writer.start()
        for delta in self._deltas.take(event):
            writer.delta(delta)
        sent = writer.choice(0)
        sent.closed |= self._deltas.closed
        if self._deltas.finish and not sent.finished:
            writer.delta({}, finish_reason=self._deltas.finish)

    def end(self, result: Result) -> list[ServerEvent]:
        """Return what is missing of the answer, its usage and the end of the stream.

        Raises StreamBroken if what was sent is not the beginning of the answer.
        """
        if self._ended:
            return []
        body = completion(result.as_json())
        self._writer.rest(body)
        self._writer.end(body.get("usage"))
        self._ended = True
        return self._writer.written()

    def fail(self, code: str, message: str, http_status: int = 500) -> list[ServerEvent]:
        """Return the error that ends the stream. No [DONE] follows: the answer is not whole."""
        if self._ended:
            return []
        self._ended = True
        return [chunk_event(error_body("openai", code, message, status=http_status))]
