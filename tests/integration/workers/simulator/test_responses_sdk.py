"""OpenAI's SDK against the simulator's Responses: answers, streams, tools, state and faults."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai.types.responses import Response
from pydantic import BaseModel

from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.server import SimulatorServer, serving

WEATHER: Any = {
    "type": "function", "name": "weather", "strict": False,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip


@asynccontextmanager
async def client(key: str = "k", *, url: str = "") -> AsyncIterator[openai.AsyncOpenAI]:
    engine = Engine(Behaviour(), time.monotonic, time.time)
    async with serving(SimulatorServer(engine)) as own:
        base = f"{url or own}/v1"
        async with openai.AsyncOpenAI(api_key=key, base_url=base, max_retries=0) as opened:
            yield opened


def is_of_its_type(response: Response) -> None:
    """Check the whole of a Response against the SDK's types."""
    Response.model_validate(response.model_dump(), strict=False)


async def test_a_stream_brings_the_response_that_is_answered_whole() -> None:
    async with client() as sdk:
        whole = await sdk.responses.create(model="gpt-4o-mini", input="Why?", store=False)
        stream = await sdk.responses.create(
            model="gpt-4o-mini", input="Why?", store=False, stream=True
        )
        events = [event async for event in stream]
    is_of_its_type(whole)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text != ""
    last: Any = events[-1]
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage


@pytest.mark.parametrize("kind", ["function", "custom"])
async def test_a_tool_is_called_and_its_result_is_wanted(kind: str) -> None:
    tool: Any = WEATHER if kind == "function" else {"type": "custom", "name": "weather"}
    async with client() as sdk:
        asked: Any = {"model": "gpt-4o-mini", "tools": [tool]}
        first = await sdk.responses.create(input="What does weather say?", **asked)
        call: Any = first.output[-1]
        with pytest.raises(openai.BadRequestError, match="No tool output found"):
            await sdk.responses.create(input="And?", previous_response_id=first.id, **asked)
        result: Any = {"type": f"{call.type}_output", "call_id": call.call_id, "output": "sunny"}
        second = await sdk.responses.create(input=[result], previous_response_id=first.id, **asked)
    is_of_its_type(first)
    assert call.type == ("function_call" if kind == "function" else "custom_tool_call")
    assert second.output_text


async def test_the_record_belongs_to_one_key() -> None:
    engine = Engine(Behaviour(), time.monotonic, time.time)
    async with (
        serving(SimulatorServer(engine)) as url,
        client("one", url=url) as one,
        client("two", url=url) as two,
    ):
        first = await one.responses.create(model="gpt-4o-mini", input="One?")
        follow: Any = {"model": "gpt-4o-mini", "input": "Two?", "previous_response_id": first.id}
        await one.responses.create(**follow)
        with pytest.raises(openai.BadRequestError, match="not found"):
            await two.responses.create(**follow)
        unstored = await one.responses.create(model="gpt-4o-mini", input="x", store=False)
        with pytest.raises(openai.BadRequestError, match="not found"):
            await one.responses.create(**{**follow, "previous_response_id": unstored.id})


class City(BaseModel):
    name: str
    people: int


async def test_an_answer_has_the_form_that_was_asked_for() -> None:
    async with client() as sdk:
        parsed = await sdk.responses.parse(model="gpt-4o-mini", input="x", text_format=City)
        short = await sdk.responses.create(model="gpt-4o-mini", input="x", max_output_tokens=16)
        thought = await sdk.responses.create(
            model="gpt-5-mini", input="x", reasoning={"effort": "low", "summary": "auto"},
            include=["reasoning.encrypted_content"],
        )  # fmt: skip
    assert isinstance(parsed.output_parsed, City)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"
    item: Any = thought.output[0]
    assert (item.type, bool(item.summary), bool(item.encrypted_content)) == (
        "reasoning", True, True
    )  # fmt: skip
    assert thought.usage is not None
    assert thought.usage.output_tokens_details.reasoning_tokens > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_output_tokens": 5},
        {"input": None},
        {"extra_body": {"messages": []}},
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        {"previous_response_id": "resp_1", "conversation": "conv_1"},
    ],
)
async def test_what_openai_refuses_is_refused(wrong: dict[str, Any]) -> None:
    async with client() as sdk:
        with pytest.raises(openai.BadRequestError):
            await sdk.responses.create(**{"model": "gpt-4o-mini", "input": "x", **wrong})
