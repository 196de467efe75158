"""Callers of a gateway with keys: what a key allows, its limits, and web pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.gateway import Answered, House, ask, house
from tests.support.servers import Simulator, ValkeyServer

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
APP, EVIL = "https://app.example.com", "https://evil.example.com"


@pytest.fixture
def at(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[House]:
    """A house whose gateway wants keys."""
    simulator = simulator_factory("--latency-ms", "20")
    settings = {"gateway_open": "0", "gateway_origins": APP}
    with house(valkey, sqlite_url, simulator, tmp_path, **settings) as found:
        yield found


@pytest.fixture
def open_house(
    valkey: ValkeyServer, sqlite_url: str, simulator: Simulator, tmp_path: Path
) -> Iterator[House]:
    """A house whose gateway is open to this machine."""
    with house(valkey, sqlite_url, simulator, tmp_path) as found:
        yield found


def new_key(at: House, *options: str, name: str = "web") -> tuple[str, str]:
    """A new key: its secret and its id."""
    ended = headgate(("keys", "create", name, *options, "--json"), at.env)
    assert ended.code == 0, ended
    return ended.document["key"], ended.document["id"]


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "max_tokens": 20, "messages": messages, **fields}


def call(at: House, secret: str, text: str = "hello", **headers: Any) -> Answered:
    """The answer to a chat with this key."""
    return ask(at.gateway, CHAT, chat(text), authorization=f"Bearer {secret}", **headers)


def test_a_key_opens_the_door_in_both_dialects(at: House) -> None:
    secret, key_id = new_key(at, "--tenant", "acme", "--any-user")
    assert call(at, secret, x_headgate_user="u1").status == 200
    message = ask(at.gateway, MESSAGES, chat("hi"), x_api_key=secret)
    assert (message.status, message.json["type"]) == (200, "message")
    jobs = headgate(("jobs", "--tenant", "acme", "--json"), at.env).out.splitlines()
    assert [json.loads(line)["user"] for line in jobs] == [None, "u1"]
    for answered, kind in (
        (ask(at.gateway, CHAT, chat("no")), "error"),
        (call(at, "hg-" + "x" * 43), "error"),
        (ask(at.gateway, MESSAGES, chat("no"), x_api_key="sk-ant-1"), "error"),
    ):
        assert answered.status == 401
        assert answered.json[kind]["type"] in ("invalid_request_error", "authentication_error")
        assert answered.headers["x-should-retry"] == "false"
    headgate(("keys", "revoke", key_id), at.env)
    wait_until(lambda: call(at, secret).status == 401, 10, "the key to be refused")
    log = at.gateway.log()
    assert secret not in log


def test_a_key_allows_what_it_says_and_no_more(at: House) -> None:
    secret, _ = new_key(at, "--tenant", "acme", "--scope", "chat", "--model", "gpt-4o-mini")
    assert call(at, secret).status == 200
    bearer: dict[str, Any] = {"authorization": f"Bearer {secret}"}
    bad = [
        call(at, secret, x_headgate_tenant="other"),
        call(at, secret, x_headgate_user="u1"),
        ask(at.gateway, CHAT, chat("x", model="gpt-4o"), **bearer),
        ask(at.gateway, CHAT, chat("x", headgate={"fallback": ["gpt-4o"]}), **bearer),
        ask(at.gateway, CHAT, chat("x", headgate={"tier": "master"}), **bearer),
        ask(at.gateway, "/v1/embeddings", {"model": "m", "input": "x"}, **bearer),
    ]
    assert [answered.status for answered in bad] == [403] * len(bad)
    key_id = chat("x", headgate={"key_id": "hgk_0123456789ab"})
    assert ask(at.gateway, CHAT, key_id, **bearer).status == 400
    models = ask(at.gateway, "/v1/models", **bearer).json["data"]
    assert [one["id"] for one in models] == ["gpt-4o-mini"]


def test_the_limits_of_a_key_bind_its_calls_alone(at: House) -> None:
    limited, _ = new_key(at, "--rpm", "1")
    free, _ = new_key(at, name="free")
    assert call(at, limited, "one", x_headgate_on_limit="refuse").status == 200
    refused = call(at, limited, "two", x_headgate_on_limit="refuse")
    assert refused.status == 429, refused.body
    assert refused.headers["x-ratelimit-limit-requests"] == "1"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    late = call(at, limited, "three", x_headgate_deadline_s="2")
    assert late.status in (408, 504), late.body
    assert call(at, free, "four").status == 200


def test_the_budget_of_a_key_is_all_that_it_spends(at: House) -> None:
    poor, _ = new_key(at, "--budget", "0.0000001/day")
    rich, _ = new_key(at, "--budget", "5/month", name="rich")
    refused = call(at, poor, x_headgate_deadline_s="60")
    assert refused.status == 402, refused.body
    assert call(at, rich, x_headgate_deadline_s="60").status == 200
    rows = headgate(("budgets", "--json"), at.env).document
    assert {row["budget_usd"] for row in rows} == {"0.0000001", "5"}


def test_only_listed_pages_may_call(at: House) -> None:
    plain, _ = new_key(at)
    listed, _ = new_key(at, "--origin", EVIL, name="listed")
    asked: dict[str, Any] = {"access_control_request_method": "POST",
             "access_control_request_headers": "authorization"}  # fmt: skip
    for origin in (APP, EVIL):
        answered = ask(at.gateway, CHAT, method="OPTIONS", origin=origin, **asked)
        assert answered.status == 204
        assert answered.headers["access-control-allow-origin"] == origin
        assert answered.headers["access-control-allow-headers"] == "authorization"
    other = ask(at.gateway, CHAT, method="OPTIONS", origin="https://other.example.com", **asked)
    assert "access-control-allow-origin" not in other.headers
    answered = call(at, plain, origin=APP)
    assert (answered.status, answered.headers["access-control-allow-origin"]) == (200, APP)
    assert call(at, plain, origin=EVIL).status == 403
    assert call(at, listed, origin=EVIL).status == 200


def test_an_open_gateway_takes_no_call_of_a_strangers_page(open_house: House) -> None:
    at = open_house
    own = f"http://127.0.0.1:{at.gateway.port}"
    assert ask(at.gateway, CHAT, chat("one")).status == 200
    assert ask(at.gateway, CHAT, chat("two"), origin=own).status == 200
    body = json.dumps(chat("three")).encode()
    simple = ask(at.gateway, CHAT, body, origin=EVIL, content_type="text/plain")
    rebound = ask(at.gateway, CHAT, chat("four"), host="evil.example.com:8080")
    assert (simple.status, rebound.status) == (403, 403)
    assert at.simulator.stats()["requests"] == 2
    started = headgate(("gateway", "--host", "0.0.0.0"), {**at.env, "HEADGATE_GATEWAY_OPEN": "1"})  # noqa: S104
    assert (started.code, "127.0.0.1" in started.err) == (2, True)
