"""A job in Anthropic's form on a real worker: unchanged at Claude, translated at others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate import Client
from headgate.shared.errors import InvalidRequest
from headgate.shared.settings import Settings
from tests.support.anthropic_matrix import CALL, FUNCTION
from tests.support.child import BUSY
from tests.support.recorded_installation import asking
from tests.support.recording_provider import GivenAnswer, RecordingProvider, recording_provider
from tests.support.servers import ValkeyServer

WAIT_S = 60 * BUSY

#: A turn of an agent: system prompt with a mark, tools, thinking, and the result of a call.
MESSAGES = (
    '[{"role":"user","content":"What is the weather in Lima?"},'
    '{"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"c2ln"},'
    '{"type":"tool_use","id":"toolu_1","name":"f","input":{"x":1}}]},'
    '{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":'
    '[{"type":"text","text":"sunny","cache_control":{"type":"ephemeral"}}]}]}]'
)
PARAMS = (
    '"max_tokens":2000,"system":[{"type":"text","text":"Be kind.",'
    '"cache_control":{"type":"ephemeral","ttl":"1h"}}],'
    '"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],'
    '"thinking":{"type":"enabled","budget_tokens":1024},"metadata":{"user_id":"u-1"}'
)
AT_ANTHROPIC = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
    "content": [{"type": "thinking", "thinking": "So.", "signature": "c2ln"},
                {"type": "text", "text": "Sun."}],
    "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 3},
}  # fmt: skip
AT_OPENAI = {
    "id": "c-1", "model": "gpt-4o-mini",
    "choices": [{"message": {"role": "assistant", "content": "Sun."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3},
}  # fmt: skip


@pytest.fixture
def vendor() -> Iterator[RecordingProvider]:
    """A vendor of both dialects, whose answers each test sets."""
    with recording_provider(GivenAnswer(AT_ANTHROPIC)) as running:
        yield running


@pytest.fixture
def client(
    vendor: RecordingProvider, valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> Iterator[Client]:
    """A client of an installation with a worker that asks the vendor."""
    anthropic = {"ANTHROPIC_API_KEY": "sk-test-anthropic", "ANTHROPIC_BASE_URL": vendor.url}
    with asking(vendor, valkey, sqlite_url, tmp_path, **anthropic) as env:
        settings = Settings(
            home=Path(env["HEADGATE_HOME"]),
            redis_url=env["HEADGATE_REDIS_URL"],
            database_url=env["HEADGATE_DATABASE_URL"],
        )
        with Client(settings) as opened:
            yield opened


def form(**more: Any) -> dict[str, Any]:
    params = {**json.loads(f"{{{PARAMS}}}"), **more.pop("params", {})}
    messages = json.loads(MESSAGES)
    return {"dialect": "anthropic", "messages": messages, "params": params, **more}


def test_one_job_in_anthropics_form_goes_to_claude_to_the_byte_and_to_others_translated(
    client: Client, vendor: RecordingProvider
) -> None:
    betas: dict[str, Any] = {
        "anthropic_beta": ["interleaved-thinking-2025-05-14"],
        "brand_new": [1.5, None],
    }
    claude = form(model="claude-haiku-4-5", params=betas)
    result = client.submit(**claude).result(timeout_s=WAIT_S)
    assert (result.content, result.message) == ("Sun.", AT_ANTHROPIC)
    [sent] = vendor.requests
    wanted = f'{{"model":"claude-haiku-4-5","messages":{MESSAGES},{PARAMS},"brand_new":[1.5,null]}}'
    assert sent.body.decode() == wanted
    assert sent.headers["anthropic-beta"] == betas["anthropic_beta"][0]

    vendor.answers[:] = [GivenAnswer(AT_OPENAI)]
    result = client.submit(**form(model="gpt-4o-mini")).result(timeout_s=WAIT_S)
    assert (result.content, result.finish_reason) == ("Sun.", "stop")
    assert result.message == AT_OPENAI
    assert vendor.requests[1].json() == {
        "model": "gpt-4o-mini",
        "max_tokens": 2000,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "What is the weather in Lima?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"},
        ],
        "tools": [FUNCTION],
    }


def test_the_same_job_falls_back_to_another_vendor_unless_it_cannot_carry_a_field(
    client: Client, vendor: RecordingProvider
) -> None:
    vendor.answers[:] = [GivenAnswer({}, status=403), GivenAnswer(AT_OPENAI)]
    asked = form(model="claude-haiku-4-5", fallback=["gpt-4o-mini"], cache={"mode": "off"})
    result = client.submit(**asked).result(timeout_s=WAIT_S)
    assert (result.fallback, result.model_used) == (True, "gpt-4o-mini")
    assert [request.path for request in vendor.requests] == ["/v1/messages", "/v1/chat/completions"]

    with pytest.raises(InvalidRequest, match=r"params\.top_k"):
        client.submit(**form(model="gpt-4o-mini", params={"top_k": 5}))
    assert len(vendor.requests) == 2


def test_answers_are_cached_within_a_form_and_not_across(
    client: Client, vendor: RecordingProvider
) -> None:
    asked = form(model="claude-haiku-4-5", cache={"mode": "exact"})
    client.submit(**asked).result(timeout_s=WAIT_S)
    again = client.submit(**asked).result(timeout_s=WAIT_S)
    # "shared": the end was on record before Redis knew of it
    assert again.cached in ("exact", "shared")
    plain: dict[str, Any] = {
        "prompt": "Hi",
        "model": "claude-haiku-4-5",
        "cache": {"mode": "exact"},
    }
    for dialect in ("openai", "anthropic"):
        result = client.submit(**plain, dialect=dialect).result(timeout_s=WAIT_S)
        assert result.cached is None
    assert len(vendor.requests) == 3
