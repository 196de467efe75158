"""Requests in the form of Responses: at a provider that has it, and at those that have not."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError
from headgate.workers.provider import Answer
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.server import SimulatorServer, serving
from tests.support.sinks import RecordingSink

WEATHER = {
    "type": "function", "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip


class Asking:
    """A simulator, and a provider of each kind that asks it."""

    def __init__(self, url: str, engine: Engine) -> None:
        self.engine = engine
        named: Any = {"name": "openai", "api_key": "k", "base_url": f"{url}/v1"}
        self.native = OpenAIProvider(**named, responses=True)
        self.chat = OpenAIProvider(**named)
        self.claude = AnthropicProvider(name="anthropic", api_key="k", base_url=url)

    async def ask(self, by: str, sink: RecordingSink | None = None, **fields: Any) -> Answer:
        model = "claude-haiku-4-5" if by == "claude" else "gpt-4o-mini"
        request = Request(dialect="responses", **fields)
        return await getattr(self, by).ask(  # type: ignore[no-any-return]
            request, model=model, max_output_tokens=4096, timeout_s=60, sink=sink
        )


@asynccontextmanager
async def asking() -> AsyncIterator[Asking]:
    engine = Engine(Behaviour(), time.monotonic, time.time)
    async with serving(SimulatorServer(engine)) as url:
        all_of_them = Asking(url, engine)
        try:
            yield all_of_them
        finally:
            for one in (all_of_them.native, all_of_them.chat, all_of_them.claude):
                await one.close()


async def test_a_native_answer_is_the_vendors_response_whole() -> None:
    async with asking() as at:
        answer = await at.ask("native", input="Why?", params={"store": False, "background": False})
    reply = answer.reply
    message: Any = reply.message
    assert message["object"] == "response"
    assert reply.content == message["output"][0]["content"][0]["text"]
    assert (reply.finish_reason, answer.counted) == ("stop", True)
    assert reply.usage.input_tokens == message["usage"]["input_tokens"] > 0
    assert at.engine.stats.by_path == {"/v1/responses": 1}


async def test_a_stream_has_the_text_and_the_events_of_the_answer() -> None:
    async with asking() as at:
        whole = await at.ask("native", input="Why?")
        sink = RecordingSink(events=True)
        streamed = await at.ask("native", sink, input="Why?")
    assert "".join(sink.texts) == streamed.reply.content == whole.reply.content
    assert (streamed.reply.usage, streamed.counted) == (whole.reply.usage, True)
    assert sink.dialects == {"responses"}
    events = [json.loads(line) for line in [*sink.heads, *sink.events]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.completed"
    assert {json.loads(line)["type"] for line in sink.heads} == {
        "response.created", "response.in_progress", "response.output_item.added",
        "response.content_part.added",
    }  # fmt: skip


@pytest.mark.parametrize("by", ["native", "chat", "claude"])
async def test_every_provider_answers_with_text_tools_and_json(by: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
              "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "name": "a", "schema": schema, "strict": True}
    async with asking() as at:
        text = await at.ask(by, input="Why?", params={"instructions": "Be kind."})
        called = await at.ask(by, input="What does weather say?", params={"tools": [WEATHER]})
        [call] = called.reply.tool_calls or []
        items = [
            {"role": "user", "content": "What does weather say?"},
            {"type": "function_call", "call_id": call["id"], **call["function"]},
            {"type": "function_call_output", "call_id": call["id"], "output": "sunny"},
        ]
        after = await at.ask(by, input=items, params={"tools": [WEATHER]})
        shaped = await at.ask(by, input="x", params={"text": {"format": form}})
        short = await at.ask(by, input="x", params={"max_output_tokens": 16})
    assert text.reply.content
    assert (called.reply.finish_reason, called.reply.content) == ("tool_calls", None)
    assert call["function"]["name"] == "weather"
    assert after.reply.content
    assert set(json.loads(shaped.reply.content or "")) == {"a"}
    assert short.reply.finish_reason == "length"


@pytest.mark.parametrize("by", ["chat", "claude"])
@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ({"params": {"tools": [{"type": "web_search"}]}}, "params.tools[0]"),
        ({"params": {"previous_response_id": "resp_1"}}, "params.previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"params": {"brand_new": 1}}, "params.brand_new"),
    ],
)
async def test_what_cannot_be_carried_is_refused_by_name(
    by: str, fields: dict[str, Any], lost: str
) -> None:
    async with asking() as at:
        with pytest.raises(AttemptError, match="nothing like") as refused:
            await at.ask(by, **{"input": "x", **fields})
    assert lost in refused.value.message
    assert at.engine.stats.by_path == {}


@pytest.mark.parametrize(
    ("fault", "code"),
    [("500", "provider_error"), ("429", "rate_limited"), ("empty", "invalid_output"),
     ("cut", "connection"), ("garbage", "invalid_output"), ("stream-error", "provider_error")],
)  # fmt: skip
async def test_faults_are_the_same_errors_as_those_of_chat_completions(
    fault: str, code: str
) -> None:
    async with asking() as at:
        sink = RecordingSink() if fault == "stream-error" else None
        with pytest.raises(AttemptError) as failed:
            await at.ask("native", sink, input=f"[[fault:{fault}]] Why?")
    assert failed.value.code == code


async def test_a_stream_that_breaks_off_says_what_was_made() -> None:
    async with asking() as at:
        sink = RecordingSink()
        with pytest.raises(AttemptError):
            await at.ask("native", sink, input="[[fault:cut-body]] Why?")
    assert [made.text for made in sink.made] == ["".join(sink.texts)]
    assert sink.texts
