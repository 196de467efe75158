"""Writes the chunks of a stream in OpenAI's form, and knows what it has sent."""

from __future__ import annotations

from collections.abc import Iterator

from headgate.producer.dialects.call_places import CallPlaces
from headgate.producer.dialects.fields import Fields, fields_of, index_of, objects_of, text_of
from headgate.producer.dialects.from_openai import called_in
from headgate.producer.dialects.openai import head
from headgate.producer.dialects.pieces import replayed, rest_of_arguments, rest_of_text
from headgate.producer.dialects.server_event import ServerEvent, chunk_event
from headgate.producer.errors import StreamBroken

DONE = ServerEvent(None, b"[DONE]")
CHUNK = "chat.completion.chunk"

_HEAD = ("id", "object", "created", "model", "service_tier", "system_fingerprint")
"""Fields of a completion that stand in each of its chunks."""

_OWN = ("index", "delta", "message", "logprobs", "finish_reason")
"""Fields of a choice and of its pieces that have a place of their own here."""

_REASONING = ("reasoning_content", "reasoning", "reasoning_details")
"""Names of the reasoning, which comes before the answer."""


class SentChoice:
    """What was sent of one choice. `closed`: the places of the calls that are whole."""

    def __init__(self) -> None:
        self.begun = False
        self.finished = False
        self.closed: set[int] = set()
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, list[object]] = {}
        self._beside: dict[str, int] = {}
        self._places = CallPlaces()
        self._calls: dict[int, list[str]] = {}
        self._logged: dict[str, int] = {}

    @property
    def has_content(self) -> bool:
        """Whether a part of the answer was sent."""
        return bool(self._calls or self._others or any(map(any, self._texts.values())))

    def add(self, choice: Fields) -> None:
        """Take note of a piece of the choice that is sent."""
        self.begun = True
        for name, value in fields_of(choice.get("delta")).items():
            if name == "tool_calls":
                for call in objects_of(value):
                    self._calls.setdefault(self._places.of(call), []).append(called_in(call)[1])
            elif isinstance(value, str) and name != "role":
                self._texts.setdefault(name, []).append(value)
            elif value and name != "role":
                self._others.setdefault(name, []).append(value)
        _count_items(self._logged, fields_of(choice.get("logprobs")))
        _count_items(self._beside, choice)
        self.finished = self.finished or bool(choice.get("finish_reason"))

    def rest(self, told: Fields) -> Iterator[Fields | None]:
        """Yield the deltas that are missing of the whole message.

        Yields None if what was sent is not its beginning.
        """
        for name in sorted(told, key=lambda name: name not in _REASONING):
            value, sent = told[name], "".join(self._texts.get(name, ()))
            if name == "tool_calls":
                yield from self._rest_of_calls(objects_of(value))
            elif self._others.get(name, [value]) != [value] or (
                sent and not isinstance(value, str)
            ):
                yield None
            elif isinstance(value, str):
                yield from self._rest_of_text(name, value) if name != "role" else ()
            elif value is not None and name not in self._others:
                yield {name: value}

    def _rest_of_text(self, name: str, value: str) -> Iterator[Fields | None]:
        left = rest_of_text("".join(self._texts.get(name, ())), value)
        if left is None:
            yield None
        elif not left and name not in self._texts:
            yield {name: ""}
        else:
            yield from ({name: piece} for piece in replayed(left))

    def _rest_of_calls(self, calls: list[Fields]) -> Iterator[Fields | None]:
        for at, call in enumerate(calls):
            if at in self.closed:
                continue
            kind = "custom" if "custom" in call else "function"
            argument = "input" if kind == "custom" else "arguments"
            if at not in self._calls:
                first = {**fields_of(call.get(kind)), argument: ""}
                yield {"tool_calls": [{"index": at, **call, kind: first}]}
            left = rest_of_arguments("".join(self._calls.get(at, ())), called_in(call)[1])
            if left is None:
                yield None
            elif left:
                yield {"tool_calls": [{"index": at, kind: {argument: left}}]}

    def rest_beside(self, choice: Fields) -> Fields:
        """Return what is missing of the fields beside the message: log probabilities and others."""
        logged = _not_counted(self._logged, fields_of(choice.get("logprobs")))
        more = {name: value for name, value in choice.items() if name not in _OWN}
        return {
            **_not_counted(self._beside, more),
            "logprobs": logged if any(logged.values()) else None,
        }


def _count_items(counts: dict[str, int], fields: Fields) -> None:
    """Add up the items of the lists among the fields; another value counts as one."""
    for name, value in fields.items():
        if value is not None and name not in _OWN:
            items = len(value) if isinstance(value, list) else 1
            counts[name] = counts.get(name, 0) + items


def _not_counted(counts: dict[str, int], fields: Fields) -> Fields:
    """Return the fields that were not counted, and of lists the items that were not."""
    return {
        name: value[counts.get(name, 0) :] if isinstance(value, list) else value
        for name, value in fields.items()
        if isinstance(value, list) or name not in counts
    }


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
        return self.choices.setdefault(index, SentChoice())

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
            if delta is None:
                raise StreamBroken(self._job_id)
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
