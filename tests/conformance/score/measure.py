"""Measures the score: one call for each object of a schema, and one for each property it lost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from tests.conformance.score.addresses import ITS_OWN, POSTED, Address
from tests.conformance.score.description import EVENTS, Description, Node
from tests.conformance.score.probes import Probe, lost, objects_at, singles, whole
from tests.conformance.score.report import Score
from tests.conformance.up import Up
from tests.support.child import BUSY
from tests.support.recording_provider import GivenAnswer, RecordingProvider, recording_provider
from tests.support.servers import short_folder

HEADERS = {
    "content-type": "application/json", "x-headgate-cache": "off", "x-headgate-fallback": "false",
    "x-headgate-deadline-s": "30",
}  # fmt: skip
ERROR_IS_NO_ANSWER = {"error"}
"""An answer with an error is none: its job fails, and the error comes with another status."""

Check = Callable[[Probe], list[str]]
"""Makes the call of a probe, and returns the properties that were lost."""


@dataclass(frozen=True)
class Rig:
    """The gateway, the provider behind it, and the description that both are held against."""

    port: int
    vendor: RecordingProvider
    at: Description

    def ask(self, path: str, body: object = None, method: str = "POST") -> tuple[int, Any]:
        """Return the status and the decoded answer; of a stream the list of its events."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60 * BUSY)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, f"/v1{path}", data, HEADERS)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if "event-stream" in response.headers.get("content-type", ""):
            lines = (line.removeprefix("data: ") for line in text.splitlines())
            return response.status, [json.loads(line) for line in lines if line[:1] == "{"]
        return response.status, json.loads(text) if text else None


@contextmanager
def rig() -> Iterator[Rig]:
    """Run a gateway, a worker and a provider that records."""
    given = {
        "OPENAI_API_KEY": "sk-recorded", "HEADGATE_MAX_ATTEMPTS": "1",
        "HEADGATE_BREAKER_FAILURES": "0",
    }  # fmt: skip
    with recording_provider(GivenAnswer({})) as vendor, short_folder() as folder:
        running = Up(folder, simulate=False, **given, OPENAI_BASE_URL=vendor.url)
        running.start(60)
        try:
            yield Rig(running.port, vendor, Description())
        finally:
            running.stop(30)


def measured(only: str = "") -> list[Score]:
    """Return the scores of all categories, or of one."""
    scores: dict[str, Score] = {}
    with rig() as on:
        for address in POSTED:
            if only in address.category:
                score = scores.setdefault(address.category, Score(address.category))
                _request(on, address, score)
                _answer(on, address, score)
                if address.category in STREAMS:
                    _stream(on, address, score)
                if address.category == "responses":
                    _kept(on, address, score)
                    _counted(on, address, score)
        if only in "models":
            scores["models"] = _models(on)
    return list(scores.values())


def _take(on: Rig, score: Score, node: Node, what: str, probe: Probe, check: Check,
          base: Callable[[], Mapping[str, Any]]) -> None:  # fmt: skip
    """Score one object: all its properties in one call, and those lost each with a call."""
    bad = check(probe)
    missing = []
    for name in dict.fromkeys([*bad, *_several(on, node, probe)]):
        ways = singles(on.at, node, name, base())
        if any(check(one) for one in ways):
            missing.append(f"{what} {node.path}.{name}")
    score.total += len(probe.values)
    score.missing += missing
    for name in missing:
        sys.stderr.write(f"  {name}\n")


def _several(on: Rig, node: Node, probe: Probe) -> list[str]:
    """Return the properties of a probe that may have values of several types."""
    return [name for name in probe.values if len(on.at.variants(node.properties[name])) > 1]


def _request(on: Rig, address: Address, score: Score) -> None:
    schema = on.at.request(address.path)
    own = ITS_OWN.get(address.category, {})
    score.total += sum(name in on.at.resolved(schema)["properties"] for name in own)
    good = _least_answer(on, address)

    def check(probe: Probe) -> list[str]:
        on.vendor.answers[:] = [good]
        seen = len(on.vendor.requests)
        status, _ = on.ask(address.path, probe.body)
        if status != 200 or len(on.vendor.requests) == seen:
            return list(probe.values)
        return lost(probe, on.vendor.requests[-1].json())

    for node in on.at.nodes(schema):
        if node.root_name in own:
            score.total += len(node.properties)
            continue
        probe = whole(on.at, node, address.base(), {*own, "model"})
        _take(on, score, node, "request", probe, check, address.base)


def _least_answer(on: Rig, address: Address) -> GivenAnswer:
    return GivenAnswer(on.at.least(on.at.resolved(on.at.answer(address.path))))


def _answer(on: Rig, address: Address, score: Score) -> None:
    schema = on.at.answer(address.path)

    def check(probe: Probe) -> list[str]:
        on.vendor.answers[:] = [GivenAnswer(probe.body)]
        status, came = on.ask(address.path, address.base())
        return lost(probe, came, is_answer=True) if status == 200 else list(probe.values)

    for node in on.at.nodes(schema):
        if node.name in ERROR_IS_NO_ANSWER:
            continue
        probe = whole(on.at, node, {}, ERROR_IS_NO_ANSWER)
        _take(on, score, node, "answer", probe, check, dict)


def _kept(on: Rig, address: Address, score: Score) -> None:
    """Score what is found of an answer later, at the address of its id."""

    def check(probe: Probe) -> list[str]:
        on.vendor.answers[:] = [GivenAnswer(probe.body)]
        status, came = on.ask(address.path, address.base())
        if status == 200:
            status, came = on.ask(f"{address.path}/{came['id']}", method="GET")
        return lost(probe, came, is_answer=True) if status == 200 else list(probe.values)

    for node in on.at.nodes(on.at.answer("/responses/{response_id}", "get")):
        if node.name not in ERROR_IS_NO_ANSWER:
            probe = whole(on.at, node, {}, ERROR_IS_NO_ANSWER)
            _take(on, score, node, "kept answer", probe, check, dict)


def _counted(on: Rig, address: Address, score: Score) -> None:
    """Score the count of input tokens, which the gateway makes itself: what it accepts and says."""
    path = "/responses/input_tokens"
    own = ITS_OWN[address.category]

    def check(probe: Probe) -> list[str]:
        status, _ = on.ask(path, probe.body)
        return [] if status == 200 else list(probe.values)

    for node in on.at.nodes(on.at.request(path)):
        if node.root_name not in own:
            probe = whole(on.at, node, address.base(), {*own, "model"})
            _take(on, score, node, "counted request", probe, check, address.base)
    status, came = on.ask(path, address.base())
    for node in on.at.nodes(on.at.answer(path)):
        probe = whole(on.at, node, {}, set())
        score.total += len(probe.values)
        names = probe.values if status != 200 else _untyped(on, node, probe, came)
        score.missing += [f"count {node.path}.{name}" for name in names]


def _chat_events(body: dict[str, Any], _: GivenAnswer) -> list[object]:
    head = {name: body[name] for name in ("id", "object", "created", "model")}
    choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    return [body, {**head, "choices": [choice]}, "[DONE]"]


def _response_events(body: dict[str, Any], least: GivenAnswer) -> list[object]:
    begin = {"type": "response.created", "sequence_number": 0, "response": least.body}
    end = {"type": "response.completed", "sequence_number": 9, "response": least.body}
    kind = body["type"]
    if kind in ("response.completed", "response.failed", "response.incomplete", "error"):
        if isinstance(body.get("response"), dict) and kind != "response.completed":
            body["response"] |= {"status": kind.removeprefix("response.")}
        return [begin, body]
    return [body, end] if kind == "response.created" else [begin, body, end]


STREAMS = {"chat": _chat_events, "responses": _response_events}
"""The events of a whole stream around the one that is scored."""


def _stream(on: Rig, address: Address, score: Score) -> None:
    schema = on.at.answer(address.path, kind=EVENTS)
    least, around = _least_answer(on, address), STREAMS[address.category]

    def check(probe: Probe) -> list[str]:
        on.vendor.answers[:] = [GivenAnswer(least.body, around(probe.body, least))]
        status, came = on.ask(address.path, {**address.base(), "stream": True})
        if status != 200 or not isinstance(came, list):
            return list(probe.values)
        kind = probe.body.get("type")
        events = [one for one in came if one.get("type") == kind]
        return _fewest([lost(probe, one, is_answer=True) for one in events], probe)

    for node in on.at.nodes(schema):
        probe = whole(on.at, node, {}, set())
        _take(on, score, node, "event", probe, check, dict)


def _fewest(found: list[list[str]], probe: Probe) -> list[str]:
    return min(found, key=len, default=list(probe.values))


def _models(on: Rig) -> Score:
    """Score the list of models and one model: each property that the description names."""
    score = Score("models")
    for path, asked in (("/models", "/models"), ("/models/{model}", "/models/gpt-4o-mini")):
        status, came = on.ask(asked, method="GET")
        for node in on.at.nodes(on.at.answer(path, "get")):
            probe = whole(on.at, node, {}, set())
            score.total += len(probe.values)
            names = probe.values if status != 200 else _untyped(on, node, probe, came)
            score.missing += [f"answer {node.path}.{name}" for name in names]
    return score


def _untyped(on: Rig, node: Node, probe: Probe, came: object) -> list[str]:
    """Return the properties that are missing, or of another type than the description says."""
    kinds = {name: Probe(node, probe.body, {name: value}) for name, value in probe.values.items()}
    return [name for name, one in kinds.items() if not _is_typed(one, came)]


def _is_typed(probe: Probe, came: object) -> bool:
    [(name, value)] = probe.values.items()
    found = [one[name] for one in objects_at(probe.node, came) if name in one]
    return any(one is None or isinstance(one, type(value)) for one in found)
