"""Streams of answers in the caller's dialect, whatever vendor answers. Pure.

Events of the caller's own dialect pass through as they came, to the byte. Others are translated.
The same input gives the same events, so that event number N is the same in every gateway.
"""

from __future__ import annotations

from typing import Protocol

from headgate.producer.dialects.anthropic_stream import MessageStream
from headgate.producer.dialects.openai_stream import ChunkStream, EventKind
from headgate.producer.dialects.server_event import ServerEvent
from headgate.shared.job.request import Dialect
from headgate.shared.job.result import Result

__all__ = ["EventKind", "ServerEvent", "StreamTranslator", "translator"]


class StreamTranslator(Protocol):
    """Makes the events of one stream. After `end` or `fail` it makes no more."""

    def begin(self) -> list[ServerEvent]:
        """Return the events that need no answer yet; only a background response has some."""

    def take(self, kind: EventKind, line: bytes) -> list[ServerEvent]:
        """Return the events for one event of the vendor's, or for one piece of text.

        Raises StreamBroken if the answer began anew after a part of it was sent.
        """

    def end(self, result: Result) -> list[ServerEvent]:
        """Return what is missing of the answer, its usage and the end of the stream.

        `result`: of a job that succeeded. If nothing was streamed, that is the whole answer in
        pieces of a few words. Raises StreamBroken if what was sent is not its beginning.
        """

    def fail(self, code: str, message: str, http_status: int = 500) -> list[ServerEvent]:
        """Return the error that ends the stream in the caller's dialect."""


def translator(
    dialect: Dialect,
    *,
    job_id: str,
    model: str,
    include_usage: bool = False,
    json_only: bool = False,
) -> StreamTranslator:
    """Return what makes the stream of a job for a caller of this dialect.

    `model`: the model that the caller named, for answers that name none. `include_usage`: OpenAI's
    callers get a chunk with the usage. `json_only`: the caller asked for a JSON object, so a code
    fence around it is left out.
    """
    if dialect == "anthropic":
        return MessageStream(job_id, model)
    return ChunkStream(job_id, model, include_usage=include_usage, json_only=json_only)
