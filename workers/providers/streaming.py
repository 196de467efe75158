"""Reads answers that come in pieces: hands their text on at once, and puts the whole together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from headgate.shared.job.request import Request
from headgate.workers.errors import ConnectionLost
from headgate.workers.provider import OnPiece
from headgate.workers.providers.http import HttpPool, Response
from headgate.workers.providers.json_body import decoded_or_raise, dumped, texts_of
from headgate.workers.providers.lenient_json import read_json
from headgate.workers.providers.refusals import refusal, request_id, unusable, without_key
from headgate.workers.providers.reply_fields import fields_of
from headgate.workers.providers.sse import Event, EventParser


async def post_and_decode(
    http: HttpPool,
    path: str,
    body: dict[str, Any],
    request: Request,
    key: str,
    *,
    timeout_s: float,
    into: AnswerStream | None,
) -> tuple[Response, dict[str, Any]]:
    """Post a request, and return the response with the decoded answer, streamed or not.

    Raises one of the AttemptErrors.
    """
    response = await http.post(path, dumped(body), timeout_s=timeout_s, into=into)
    response = without_key(response, key)
    if into is not None and response.streamed:
        return response, into.whole_or_raise(response, request, key)
    return response, decoded_or_raise(response, request, key)


class AnswerParts(Protocol):
    """Puts one answer together from a vendor's events.

    `ended`: the answer is complete, but usage may still follow. `is_last`: nothing follows.
    """

    ended: bool
    is_last: bool

    def take(self, event: dict[str, Any]) -> None:
        """Add the event to the answer and hand its text on."""

    def whole(self) -> dict[str, Any]:
        """Return the answer as if it had come whole."""


class AnswerStream:
    """The stream of one answer: reads its events, and notices faults and a broken connection."""

    def __init__(self, parts: AnswerParts) -> None:
        self._parts = parts
        self._events = EventParser()
        self._begun = False
        self._over = False
        self._fault: bytes | None = None
        self._garbled = False

    @property
    def ended(self) -> bool:
        """True once the answer is complete. Usage may still follow."""
        return self._parts.ended

    def feed(self, chunk: bytes) -> bool:
        """Read a piece; return True once nothing more is expected."""
        return self._take_all(self._events.feed(chunk))

    def whole_or_raise(self, response: Response, request: Request, key: str) -> dict[str, Any]:
        """Return the answer as if it had come whole; raises the error that ended the stream."""
        if not self._over:
            self._take_all(self._events.rest(), last=True)
        if self._fault is not None:
            error = refusal(replace(response, content=self._fault), texts_of(request), key)
            if self._begun:  # what came until then may be billed
                error.billed = None
            raise error
        if self._garbled:
            raise unusable(response, "a piece of its stream is not JSON")
        if not self.ended:
            raise ConnectionLost(
                "the connection broke: the stream stops before its end",
                http_status=response.status, billed=None, request_id=request_id(response.headers),
            )  # fmt: skip
        return self._parts.whole()

    def _take_all(self, events: list[Event], *, last: bool = False) -> bool:
        for name, content in events:
            if self._over:
                break
            if content == b"[DONE]":
                self._parts.ended = self._over = True
                break
            try:
                event = read_json(content)
            except ValueError:
                if not last:  # the last may be cut off: then the stream's end is missing too
                    self._garbled = self._over = True
                break
            if name == "error" or fields_of(event).get("error"):
                self._fault, self._over = content, True
                break
            self._begun = True
            self._parts.take(fields_of(event))
            self._over = self._parts.is_last
        return self._over


class ChatParts:
    """A chat completion in OpenAI's chunks."""

    def __init__(self, on_piece: OnPiece) -> None:
        self.ended = False
        self.is_last = False  # OpenAI sends [DONE] instead
        self._on_piece = on_piece
        self._model: object = None
        self._usage: object = None
        self._tier: object = None
        self._chosen = False
        self._finish: str | None = None
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._places: dict[object, int] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Add the chunk to the completion and hand its text on."""
        self._model = event.get("model") or self._model
        # In the last chunk, or growing in each (Google, xAI): the last usage counts everything.
        self._usage = event.get("usage") or self._usage
        self._tier = event.get("service_tier") or self._tier
        choices = event.get("choices")
        choice = fields_of(choices[0]) if isinstance(choices, list) and choices else {}
        if not choice or choice.get("index"):
            return
        self._chosen = True
        delta = fields_of(choice.get("delta"))
        if text := _text(delta.get("content")):
            self._texts.append(text)
            self._on_piece(text)
        if text := _text(delta.get("refusal")):
            self._refusals.append(text)
        calls = delta.get("tool_calls")
        for call in map(fields_of, calls if isinstance(calls, list) else ()):
            self._add(call)
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self._finish = finish
            self.ended = True

    def _add(self, piece: dict[str, Any]) -> None:
        """Add the piece to its tool call."""
        place, call_id = piece.get("index"), piece.get("id")
        at = self._places.get(place)
        # Google numbers all calls of an answer 0; another id means another call.
        if at is None or (call_id and self._calls[at]["id"] not in ("", call_id)):
            at = self._places[place] = len(self._calls)
            function: dict[str, Any] = {"name": "", "arguments": ""}
            self._calls.append({"id": "", "type": "function", "function": function})
        call, made = self._calls[at], fields_of(piece.get("function"))
        call["id"] = call_id or call["id"]
        call["type"] = piece.get("type") or call["type"]
        call["function"]["name"] = made.get("name") or call["function"]["name"]
        call["function"]["arguments"] += _text(made.get("arguments"))

    def whole(self) -> dict[str, Any]:
        """Return the completion as if it had come whole."""
        has_no_text = not self._texts and (self._refusals or self._calls)
        message = {
            "content": None if has_no_text else "".join(self._texts),
            "refusal": "".join(self._refusals) or None,
            "tool_calls": self._calls or None,
        }
        choice = {"message": message, "finish_reason": self._finish}
        choices = [choice] if self._chosen else []
        bill = {"usage": self._usage, "service_tier": self._tier}
        return {"model": self._model, "choices": choices, **bill}


def _text(content: object) -> str:
    """Return the text of a piece. Mistral's reasoning models send it in parts."""
    if isinstance(content, list):
        return "".join(_text(fields_of(part).get("text")) for part in content)
    return content if isinstance(content, str) else ""


class MessageParts:
    """A message in Anthropic's events. `json_only`: a code fence is no part of the answer."""

    def __init__(self, on_piece: OnPiece, *, json_only: bool = False) -> None:
        self.ended = False
        self.is_last = False
        self._on_piece = on_piece
        self._message: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._reason: object = None
        self._blocks: dict[object, dict[str, Any]] = {}
        self._parts: dict[object, list[str]] = {}
        self._held: str | None = "" if json_only else None

    def take(self, event: dict[str, Any]) -> None:
        """Add the event to the message and hand its text on."""
        place = event.get("index")
        match event.get("type"):
            case "message_start":
                self._message = fields_of(event.get("message"))
                self._count(self._message.get("usage"))
            case "content_block_start":
                block = self._blocks[place] = fields_of(event.get("content_block"))
                self._parts[place] = []
                self._add(place, "text" if block.get("type") == "text" else "", block.get("text"))
            case "content_block_delta":
                delta = fields_of(event.get("delta"))
                kind = {"text_delta": "text", "input_json_delta": "partial_json"}
                field = kind.get(str(delta.get("type")), "")
                self._add(place, field, delta.get(field))
            case "message_delta":
                delta = fields_of(event.get("delta"))
                self._reason = delta.get("stop_reason") or self._reason
                self._count(event.get("usage"))
                self.ended = self.ended or self._reason is not None
            case "message_stop":
                self.ended = self.is_last = True

    def _add(self, place: object, field: str, text: object) -> None:
        if not field or not isinstance(text, str) or not text:
            return
        self._parts.setdefault(place, []).append(text)
        if field == "text":
            self._hand_on(text)

    def _hand_on(self, text: str) -> None:
        """Hand the text on, unless it is JSON in a code fence: that fence is removed at the end."""
        if self._held is not None:
            self._held += text
            start = self._held.lstrip()[:3]
            if "```".startswith(start):
                return
            text, self._held = self._held, None
        self._on_piece(text)

    def _count(self, usage: object) -> None:
        """Take over these counts; they are cumulative, so the last ones count everything."""
        sent = fields_of(usage)
        self._usage.update((name, value) for name, value in sent.items() if value is not None)

    def whole(self) -> dict[str, Any]:
        """Return the message as if it had come whole."""
        content = []
        for place, block in self._blocks.items():
            text = "".join(self._parts.get(place, ()))
            if block.get("type") == "text":
                content.append({**block, "text": text})
            elif block.get("type") == "tool_use":
                content.append({**block, "input": _input(text) if text else block.get("input")})
            else:
                content.append(block)
        message = {**self._message, "content": content, "usage": self._usage}
        return {**message, "stop_reason": self._reason}


def _input(written: str) -> object:
    """Return the input of a tool call; an empty one if the token limit has cut it."""
    try:
        return read_json(written.encode())
    except ValueError:
        return {}
