"""Sessions of agent programs through the gateway: same vendor to the byte, and across vendors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support import agent_sessions
from tests.support.agent_sessions import Said, Session, said, session
from tests.support.gateway import Answered, Gateway, ask, events_in
from tests.support.recorded_installation import asking
from tests.support.recording_provider import (
    GivenAnswer,
    RecordedRequest,
    RecordingProvider,
    recording_provider,
)
from tests.support.servers import ValkeyServer

ACROSS = {"claude_code": "gpt-4.1", "opencode": "claude-sonnet-5-5",
          "openai_python": "claude-haiku-4-5"}  # fmt: skip
"""The model of the other vendor that each session is asked of, too."""

OTHER = {"claude_code": "opencode", "opencode": "claude_code", "openai_python": "claude_code"}
"""Whose answers the other vendor gives."""

LIMITS = {"max_tokens", "max_completion_tokens"}


@contextmanager
def gateway_to(
    vendor: RecordingProvider, valkey: ValkeyServer, url: str, folder: Path
) -> Iterator[Gateway]:
    """A gateway and a worker whose vendors are all the recording one."""
    more = {"ANTHROPIC_API_KEY": "sk-test-anthropic", "ANTHROPIC_BASE_URL": vendor.url}
    with asking(vendor, valkey, url, folder, **more) as env, Gateway(env, folder) as gateway:
        yield gateway


def take_turn(gateway: Gateway, of: Session, body: dict[str, Any]) -> Answered:
    """The answer to one turn, as the program asks for it."""
    headers: dict[str, Any] = {n.replace("-", "_"): v for n, v in of.headers.items()}
    return ask(gateway, of.path, orjson.dumps(body), **headers)


def events_of(answered: Answered, dialect: str) -> list[dict[str, Any]]:
    """The events of a stream that ended as its dialect wants it."""
    assert answered.status == 200, answered.body
    assert answered.headers["content-type"].startswith("text/event-stream")
    sent = events_in(answered.body)
    assert [number for number, *_ in sent] == list(range(1, len(sent) + 1))
    if dialect == "openai":
        *sent, last = sent
        assert last[2] == "[DONE]"
        assert all(name is None for _, name, _ in sent)
    events = [json.loads(data) for *_, data in sent]
    if dialect == "anthropic":
        kinds = [event["type"] for event in events]
        assert kinds == [name for _, name, _ in sent]
        assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    return events


@pytest.mark.parametrize("name", agent_sessions.names())
def test_the_vendor_gets_what_the_program_sent_and_the_program_what_the_vendor_said(
    name: str, valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    of = session(name)
    with (
        recording_provider(*of.given()) as vendor,
        gateway_to(vendor, valkey, sqlite_url, tmp_path) as gateway,
    ):
        for number, (body, answer) in enumerate(of.turns()):
            answered = take_turn(gateway, of, body)
            assert events_of(answered, of.dialect) == list(answer)
            require_sent(vendor.requests[number], body, of)
        assert len(vendor.requests) == len(of.bodies)


def require_sent(got: RecordedRequest, body: dict[str, Any], of: Session) -> None:
    """What the vendor got is what the program sent, to the byte and in the same order.

    OpenAI's limit of tokens goes under the name that the model knows.
    """
    sent = got.json()
    limit = LIMITS & body.keys()
    assert [sent[name] for name in LIMITS & sent.keys()] == [body[name] for name in limit]
    assert sent.keys() - LIMITS == body.keys() - LIMITS
    for field in body.keys() - LIMITS:
        assert orjson.dumps(sent[field]) == orjson.dumps(body[field]), field
    assert orjson.dumps(body["messages"]) in got.body
    if of.dialect == "anthropic":
        for name in ("anthropic-beta", "anthropic-version"):
            assert got.headers[name] == of.headers[name]
        assert "sk-test-anthropic" in got.headers["authorization"]
    else:
        assert got.headers["authorization"] == "Bearer sk-test-openai"


@pytest.mark.parametrize("name", agent_sessions.names())
def test_every_turn_is_answered_by_a_model_of_the_other_vendor(
    name: str, valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    of, other = session(name), session(OTHER[name])
    answers = other.answers[-4:]
    with (
        recording_provider(*other.given()[-4:]) as vendor,
        gateway_to(vendor, valkey, sqlite_url, tmp_path) as gateway,
    ):
        bodies = [body for body, _ in of.turns(ACROSS[name])][-4:]
        for body, answer in zip(bodies, answers, strict=True):
            answered = take_turn(gateway, of, body)
            events = events_of(answered, of.dialect)
            assert said(of.dialect, events) == said(other.dialect, answer)
        assert [len(one.json()["tools"]) for one in vendor.requests] == [
            len(body["tools"]) for body in bodies
        ]
        require_results(vendor.requests[-1], bodies[-1], other.dialect)


def require_results(got: RecordedRequest, body: dict[str, Any], dialect: str) -> None:
    """Each call of the last turn has its result at the other vendor, in the same order."""
    sent = got.json()["messages"]
    if dialect == "openai":
        calls = [call["id"] for one in sent for call in one.get("tool_calls") or ()]
        results = [one["tool_call_id"] for one in sent if one["role"] == "tool"]
    else:
        blocks = [b for one in sent if isinstance(one["content"], list) for b in one["content"]]
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    assert len(calls) >= 3
    assert calls == results
    given = orjson.dumps(body)
    assert all(call.encode() in given for call in calls)


def test_what_the_other_vendor_cannot_do_is_refused_by_name(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    code, openai = session("claude_code"), session("openai_python")
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    with (
        recording_provider(GivenAnswer(status=500)) as vendor,
        gateway_to(vendor, valkey, sqlite_url, tmp_path) as gateway,
    ):
        body = {**code.bodies[1], "model": "gpt-4.1"}
        refused = take_turn(gateway, code, {**body, "tools": [*body["tools"], search]})
        assert refused.status == 400, refused.body
        assert refused.json["error"]["type"] == "invalid_request_error"
        assert "tools[8]" in refused.json["error"]["message"]
        body = {**openai.bodies[1], "model": "claude-haiku-4-5", "logit_bias": {"50256": -100}}
        refused = take_turn(gateway, openai, body)
        assert refused.status == 400, refused.body
        assert refused.json["error"]["param"] == "logit_bias"
        assert refused.headers["x-should-retry"] == "false"
        assert vendor.requests == []


def test_tokens_of_a_turn_are_counted_and_models_are_listed(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    """Claude Code asks for both where its gateway has them."""
    of = session("claude_code")
    body = {k: of.bodies[2][k] for k in ("model", "messages", "system", "tools", "thinking")}
    headers: dict[str, Any] = {n.replace("-", "_"): v for n, v in of.headers.items()}
    with (
        recording_provider(GivenAnswer(status=500)) as vendor,
        gateway_to(vendor, valkey, sqlite_url, tmp_path) as gateway,
    ):
        counted = ask(gateway, "/v1/messages/count_tokens?beta=true", body, **headers)
        assert counted.status == 200, counted.body
        assert 500 < counted.json["input_tokens"] < 5000
        listed = ask(gateway, "/v1/models?limit=1000", anthropic_version="2023-06-01").json
        assert {"claude-sonnet-5-5", "gpt-4.1"} <= {one["id"] for one in listed["data"]}


def test_what_a_stream_says_is_read_alike_in_both_dialects() -> None:
    """The reader of this test finds the calls, so that equal answers mean something."""
    assert said("openai", session("opencode").answers[0]) == Said(
        "",
        [
            ("read", {"filePath": "/srv/rivers/src/rivers.py"}),
            ("bash", {"command": "pytest -q", "description": "Run the tests"}),
        ],
        True,
        61,
    )
    assert len(said("anthropic", session("claude_code").answers[1]).calls) == 2
