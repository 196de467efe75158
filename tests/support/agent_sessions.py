"""Sessions of agent programs: what each turn asks, and what the vendor answers in its own dialect.

A file of `tests/integration/producer/gateway/sessions` holds one session. It is written after what
is publicly known of the program's requests; `written_after` names the sources. A turn asks with the
fields of `shared` and the first `messages` of the session, or with a `body` of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.support.recording_provider import GivenAnswer, anthropic_events

FOLDER = ROOT / "tests" / "integration" / "producer" / "gateway" / "sessions"

Fields = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """One session, as its file has it."""

    name: str
    path: str
    headers: Mapping[str, str]
    bodies: Sequence[Fields]
    answers: Sequence[Sequence[Fields]]

    @property
    def dialect(self) -> str:
        """The vendor whose dialect the program speaks."""
        return "anthropic" if self.path.startswith("/v1/messages") else "openai"

    def given(self) -> list[GivenAnswer]:
        """Return the answers for a recording provider, one for each turn."""
        if self.dialect == "anthropic":
            return [GivenAnswer(events=anthropic_events(*events)) for events in self.answers]
        return [GivenAnswer(events=[*events, "[DONE]"]) for events in self.answers]

    def turns(self, model: str | None = None) -> Iterator[tuple[Fields, Sequence[Fields]]]:
        """Yield each turn's body and its answer. `model`: ask this one in place of the body's."""
        for body, events in zip(self.bodies, self.answers, strict=True):
            yield ({**body, "model": model} if model else body), events


def session(name: str) -> Session:
    """Return the session of this name."""
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    bodies = [
        turn.get("body") or {**found["shared"], "messages": found["messages"][: turn["messages"]]}
        for turn in found["turns"]
    ]
    return Session(name, found["path"], found["headers"], bodies, found["answers"])


def names() -> list[str]:
    """Return the names of all sessions."""
    return sorted(path.stem for path in Path(FOLDER).glob("*.json"))


@dataclass(frozen=True)
class Said:
    """What an answer says, whatever its dialect: text, calls of tools, and why it ended."""

    text: str
    calls: list[tuple[str, Any]]
    asks_for_tools: bool
    output_tokens: int | None


def said(dialect: str, events: Iterable[Fields]) -> Said:
    """Return what the events of a stream say, as a program of this dialect reads them."""
    return _said_by_anthropic(events) if dialect == "anthropic" else _said_by_openai(events)


def _said_by_openai(events: Iterable[Fields]) -> Said:
    text, finish, tokens = "", None, None
    calls: dict[int, list[str]] = {}
    for event in events:
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            for piece in delta.get("tool_calls") or ():
                call = calls.setdefault(piece["index"], ["", ""])
                call[0] += piece["function"].get("name") or ""
                call[1] += piece["function"].get("arguments") or ""
            finish = choice.get("finish_reason") or finish
    asked = [(name, json.loads(arguments)) for name, arguments in calls.values()]
    return Said(text, asked, finish == "tool_calls", tokens)


def _said_by_anthropic(events: Iterable[Fields]) -> Said:
    text, stop, tokens = "", None, None
    blocks: dict[int, Fields] = {}
    for event in events:
        match event["type"]:
            case "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "json": ""}
            case "content_block_delta":
                text += event["delta"].get("text", "")
                blocks[event["index"]]["json"] += event["delta"].get("partial_json", "")
            case "message_delta":
                stop = event["delta"]["stop_reason"]
                tokens = event["usage"]["output_tokens"]
    asked = [
        (block["name"], json.loads(block["json"] or "{}"))
        for block in blocks.values()
        if block["type"] == "tool_use"
    ]
    return Said(text, asked, stop == "tool_use", tokens)
