"""Puts a chat completion together from OpenAI's chunks."""

from __future__ import annotations

import base64
from typing import Any

from headgate.shared.job.request import Dialect
from headgate.workers.provider import OnPiece
from headgate.workers.providers.lenient_json import PairedText
from headgate.workers.providers.pieces import Fields, Pieces, place_of, size_of
from headgate.workers.providers.reading import NODE
from headgate.workers.providers.reply_fields import fields_of

#: Random padding of chunks, against guesses from their lengths: no part of the answer.
_PADDING = "obfuscation"

#: What a message may hold in place of a text.
INSTEAD_OF_TEXT = ("refusal", "tool_calls", "function_call", "audio")


class ChatParts:
    """A chat completion in OpenAI's chunks. `choices`: how many answers were asked for."""

    dialect: Dialect = "openai"

    def __init__(self, on_piece: OnPiece, *, choices: int = 1) -> None:
        self.ended = False
        self.is_last = False  # OpenAI sends [DONE] instead
        self.begun = False
        self._on_piece = PairedText(on_piece)
        self._wanted = choices
        self._completion: Fields = {}
        self._size = 0
        self._choices: dict[int, _ChoiceParts] = {}

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the completion takes."""
        return self._size + sum(parts.size for parts in self._choices.values())

    def take(self, event: dict[str, Any]) -> None:
        """Add the chunk to the completion and hand on the text of its first choice."""
        completion = self._completion
        for name, value in event.items():
            if name not in completion:
                self._size += NODE + size_of(value)
            elif not value:
                continue
            # Usage is in the last chunk, or grows in each (Google, xAI): the last one counts.
            completion[name] = value
        given = event.get("choices")
        for choice in map(fields_of, given if isinstance(given, list) else ()):
            if choice:
                self._take_choice(choice)

    def _take_choice(self, choice: Fields) -> None:
        index = choice.get("index")
        index = index if isinstance(index, int) else 0
        parts = self._choices.get(index)
        if parts is None:
            parts = self._choices[index] = _ChoiceParts()
        self.begun = self.begun or _has_content(fields_of(choice.get("delta")))
        text = parts.take(choice)
        if text and index == 0:
            self._on_piece(text)
        if choice.get("finish_reason"):
            finished = [one for one in self._choices.values() if one.finished]
            self.ended = len(finished) >= max(self._wanted, len(self._choices))

    def so_far(self) -> tuple[object, str]:
        """Return the usage that has come, and the texts of all kinds."""
        texts = (parts.texts() for parts in self._choices.values())
        return self._completion.get("usage"), "".join(texts)

    def whole(self) -> dict[str, Any]:
        """Return the completion as if it had come whole."""
        self._on_piece.end()
        completion = self._completion
        completion.pop(_PADDING, None)
        if completion.get("object") == "chat.completion.chunk":
            completion["object"] = "chat.completion"
        completion["choices"] = [parts.whole() for _, parts in sorted(self._choices.items())]
        return completion


def _has_content(delta: Fields) -> bool:
    """Return whether the delta has more than the head of a message: its role and empty fields."""
    return any(value for name, value in delta.items() if name != "role")


class _ChoiceParts:
    """One choice of a completion."""

    def __init__(self) -> None:
        self._pieces = Pieces()
        self._choice: Fields = {}
        self._message: Fields = {}
        self._calls: list[Fields] = []
        self._places: dict[object, int] = {}
        self._sound: list[str] = []

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the choice takes."""
        return NODE + self._pieces.size + NODE * len(self._calls)

    @property
    def finished(self) -> bool:
        """True once its finish reason has come."""
        finish = self._choice.get("finish_reason")
        return isinstance(finish, str) and bool(finish)

    def texts(self) -> str:
        """Return its texts of all kinds, also reasoning and arguments of tools."""
        return self._pieces.grown()

    def take(self, choice: Fields) -> str:
        """Add the piece, and return its text."""
        for name, value in choice.items():
            if name == "delta":
                self._choice.setdefault("message", self._message)
            elif value is None:
                self._choice.setdefault(name, None)
            elif name != "message":
                self._pieces.merge(self._choice, {name: value}, grows=False)
        text = ""
        for name, value in fields_of(choice.get("delta")).items():
            if name == "content":
                text = self._add_content(value)
            elif name == "tool_calls" and isinstance(value, list):
                self._message["tool_calls"] = self._calls
                for call in map(fields_of, value):
                    self._add_call(call)
            else:
                self._pieces.merge(self._message, {name: value})
                if name == "audio":
                    self._sound.append(str(fields_of(value).get("data") or ""))
                    self._pieces.size += NODE + len(self._sound[-1])
        return text

    def _add_content(self, content: object) -> str:
        """Add text, or parts as Mistral's reasoning models send them; return the text in it."""
        message = self._message
        if isinstance(content, list):
            added = text_of(content)
            if not isinstance(message.get("content"), list):
                text = self._pieces.take_text(message, "content")
                message["content"] = []
                content = [{"type": "text", "text": text}, *content] if text else content
            self._add_parts(message["content"], content)
            return added
        if not isinstance(content, str):
            message.setdefault("content", content)
            return ""
        if isinstance(message.get("content"), list):
            self._add_parts(message["content"], [{"type": "text", "text": content}])
        else:
            self._pieces.grow(message, "content", content)
        return content

    def _add_parts(self, parts: list[Any], more: list[Any]) -> None:
        """Add parts to a list; a part of the type of the last one goes on with it."""
        for part in more:
            last = parts[-1] if parts else None
            self._pieces.size += NODE
            if not isinstance(part, dict):
                parts.append(part)
                self._pieces.size += size_of(part)
                continue
            kind = part.get("type")
            if kind is None or not isinstance(last, dict) or last.get("type") != kind:
                last = {}
                parts.append(last)
            for name, value in part.items():
                if name == "thinking" and isinstance(value, list):
                    self._add_parts(last.setdefault(name, []), value)
                else:
                    self._pieces.merge(last, {name: value})

    def _add_call(self, piece: Fields) -> None:
        """Add the piece to its tool call."""
        place, call_id = place_of(piece), piece.get("id")
        at = self._places.get(place)
        # Google numbers all calls of an answer 0; another id means another call.
        if at is None or (call_id and self._calls[at]["id"] not in ("", call_id)):
            at = self._places[place] = len(self._calls)
            call: Fields = {"id": "", "type": "function"}
            if piece.get("type") in (None, "function"):
                call["function"] = {"name": "", "arguments": ""}
            self._calls.append(call)
        shown = {name: value for name, value in piece.items() if name != "index"}
        self._pieces.merge(self._calls[at], shown)

    def whole(self) -> Fields:
        """Return the choice as if it had come whole."""
        message = self._choice.setdefault("message", self._message)
        self._pieces.settle()
        if not message.get("content"):
            beside = any(message.get(name) for name in INSTEAD_OF_TEXT)
            # Some servers begin with an empty text whatever follows.
            message["content"] = None if beside else message.get("content", "")
        if len(self._sound) > 1:
            message["audio"]["data"] = joined_base64(self._sound)
        return self._choice


def text_of(content: object) -> str:
    """Return the text of a content. Mistral's reasoning models send it in parts."""
    if isinstance(content, list):
        return "".join(text_of(fields_of(part).get("text")) for part in content)
    return content if isinstance(content, str) else ""


def joined_base64(pieces: list[str]) -> str:
    """Return base64 of all pieces together, each of which may end in padding of its own."""
    if not any("=" in piece for piece in pieces[:-1]):
        return "".join(pieces)
    try:
        return base64.b64encode(b"".join(map(base64.b64decode, pieces))).decode()
    except ValueError:
        return "".join(pieces)
