"""Writes the chunks of a stream in OpenAI's form, and knows what it has sent."""

from __future__ import annotations

from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.openai import head
from headgate.producer.dialects.sent_choice import SentChoice
from headgate.producer.dialects.server_event import ServerEvent, chunk_event

DONE = ServerEvent(None, b"[DONE]")
CHUNK = "chat.completion.chunk"

_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""Fields of a completion that stand in each of its chunks."""


class ChunkWriter:
    """The chunks of one job's answer. `usage_sent`: the chunk with the usage was among them."""

    def __init__(self, job_id: str, model: str, *, include_usage: bool) -> None:
        self.usage_sent = False
        self.choices: dict[int, SentChoice] = {}
        self._job_id = job_id
        self._model = model
        self._include_usage = include_usage
        self._head: Fields = {}
        self._events: list[ServerEvent] = []

    @property
    def has_content(self) -> bool:
        """Whether a part of the answer was sent."""
        return any(sent.has_content for sent in self.choices.values())

    def written(self) -> list[ServerEvent]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def pass_on(self, chunk: Fields, line: bytes) -> None:
        """Send a chunk as the vendor sent it. The one with the usage only goes to who wants it."""
        choices = chunk.get("choices")
        if choices == [] and isinstance(chunk.get("usage"), dict):
            if not self._include_usage:
                return
            self.usage_sent = True
        for choice in objects_of(choices):
            self._head = self._head or {n: chunk[n] for n in _HEAD if n in chunk}
            self.choice(index_of(choice)).add(choice)
        self._events.append(ServerEvent(None, line))

    def choice(self, index: int) -> SentChoice:
        """Return what was sent of the choice of this index."""
        return self.choices.setdefault(index, SentChoice(self._job_id))

    def start(self, model: str = "", **more: object) -> None:
        """Send the chunk with the role, unless a chunk was sent."""
        if not self.choices:
            made = self._head or head(self._job_id, model or self._model, CHUNK)
            self._head = {**made, **more}
            self.delta({"role": "assistant", "content": None, "refusal": None})

    def delta(self, delta: Fields, index: int = 0, **more: object) -> None:
        """Send a piece of a choice."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        self.choice(index).add(choice)
        self._send({"choices": [choice]})

    def rest(self, body: Fields) -> None:
        """Send what is missing of a whole completion; raise StreamBroken if that cannot be."""
        extras: Fields = {}
        if not self._head:
            self._head = {name: body[name] for name in _HEAD if name in body} | {"object": CHUNK}
            extras = {n: v for n, v in body.items() if n not in (*_HEAD, "choices", "usage")}
        for at, choice in enumerate(objects_of(body.get("choices"))):
            index = index_of({"index": at, **choice})
            sent = self.choice(index)
            told = fields_of(choice.get("message"))
            if not sent.begun:
                begin = {"role": text_of(told.get("role")) or "assistant", "content": None}
                begin["content"] = "" if isinstance(told.get("content"), str) else None
                self._send({**extras, "choices": [_first(begin, index)]})
                sent.add({"delta": begin})
                extras = {}
            if not sent.finished:
                self._finish(sent, index, choice)

    def _finish(self, sent: SentChoice, index: int, choice: Fields) -> None:
        for delta in sent.rest(fields_of(choice.get("message"))):
            self.delta(delta, index)
        finish = choice.get("finish_reason") or "stop"
        self.delta({}, index, **sent.rest_beside(choice), finish_reason=finish)

    def end(self, usage: object) -> None:
        """Send the usage to who wants it, and the end of the stream."""
        if self._include_usage and not self.usage_sent:
            self._send({"choices": [], "usage": usage})
        self._events.append(DONE)

    def _send(self, more: Fields) -> None:
        empty = {"usage": None} if self._include_usage else {}
        self._events.append(chunk_event({**self._head, **empty, **more}))


def _first(delta: Fields, index: int) -> Fields:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
