"""The vendors' own SDKs against the simulator: answers, streams, limits and errors."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.server import SimulatorServer, serving
from tests.support.child import BUSY


@dataclass
class Running:
    """A simulator in this process, with a client of each vendor."""

    engine: Engine
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic


@asynccontextmanager
async def running(behaviour: Behaviour | None = None, key: str = "k") -> AsyncIterator[Running]:
    engine = Engine(behaviour or Behaviour(), time.monotonic, time.time)
    async with (
        serving(SimulatorServer(engine)) as url,
        openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=60) as first,
        anthropic.AsyncAnthropic(api_key=key, base_url=url, max_retries=0, timeout=60) as second,
    ):
        yield Running(engine, first, second)


async def ask_openai(client: openai.AsyncOpenAI, prompt: str, **more: Any) -> Any:
    more.setdefault("model", "gpt-4o-mini")
    return await client.chat.completions.create(
        messages=[{"role": "user", "content": prompt}], **more
    )


async def ask_anthropic(client: anthropic.AsyncAnthropic, prompt: str, **more: Any) -> Any:
    more.setdefault("max_tokens", 200)
    more.setdefault("model", "claude-haiku-4-5")
    return await client.messages.create(messages=[{"role": "user", "content": prompt}], **more)


async def until(true: Any) -> None:
    async with asyncio.timeout(5 * BUSY):
        while not true():  # noqa: ASYNC110  a condition of the server, which has no event for it
            await asyncio.sleep(0.005)


async def test_openai_streams_the_text_that_it_answers_whole() -> None:
    async with running() as it:
        whole = await ask_openai(it.openai, "Why is the sky blue?")
        stream = await ask_openai(
            it.openai,
            "Why is the sky blue?",
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
        assert text == whole.choices[0].message.content
        assert chunks[-2].choices[0].finish_reason == "stop"
        assert chunks[-1].choices == []
        assert chunks[-1].usage == whole.usage
        assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_openai_streams_no_usage_unless_asked() -> None:
    async with running() as it:
        chunks = [chunk async for chunk in await ask_openai(it.openai, "Hi", stream=True)]
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_anthropic_streams_the_message_that_it_answers_whole() -> None:
    async with running() as it:
        whole = await ask_anthropic(it.anthropic, "Why is the sky blue?")
        stream = await ask_anthropic(it.anthropic, "Why is the sky blue?", stream=True)
        kinds = [event.type async for event in stream]
        assert kinds[:2] == ["message_start", "content_block_start"]
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        async with it.anthropic.messages.stream(
            model="claude-haiku-4-5",
            max_tokens=200,
            messages=[{"role": "user", "content": "Why is the sky blue?"}],
        ) as gathered:
            message = await gathered.get_final_message()
        assert message.content[0].model_dump()["text"] == whole.content[0].text
        assert message.usage.output_tokens == whole.usage.output_tokens
        assert message.usage.input_tokens == whole.usage.input_tokens
        assert message.stop_reason == whole.stop_reason == "end_turn"


async def test_claude_thinks_before_it_answers_whole_and_in_a_stream() -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    more: Any = {"max_tokens": 2000, "thinking": thinking}
    async with running() as it:
        whole = await ask_anthropic(it.anthropic, "Why is the sky blue?", **more)
        assert [block.type for block in whole.content] == ["thinking", "text"]
        assert whole.content[0].signature
        assert 0 < whole.usage.output_tokens_details.thinking_tokens < whole.usage.output_tokens
        async with it.anthropic.messages.stream(
            model="claude-haiku-4-5",
            messages=[{"role": "user", "content": "Why is the sky blue?"}],
            **more,
        ) as gathered:
            message = await gathered.get_final_message()
        assert message.model_dump()["content"] == whole.model_dump()["content"]
        assert message.usage.output_tokens_details == whole.usage.output_tokens_details


async def test_embeddings_come_as_numbers_and_as_base64_alike() -> None:
    async with running() as it:
        packed = await it.openai.embeddings.create(
            model="text-embedding-3-small", input=["one two", "three"]
        )
        plain = await it.openai.embeddings.create(
            model="text-embedding-3-small", input=["one two", "three"], encoding_format="float"
        )
        assert [len(one.embedding) for one in packed.data] == [1536, 1536]
        assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding)
        assert packed.usage.prompt_tokens == 3


async def test_tools_are_called_in_each_vendors_form() -> None:
    schema: Any = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    function = {"type": "function", "function": {"name": "get_weather", "parameters": schema}}
    tool = {"name": "get_weather", "input_schema": schema}
    async with running() as it:
        reply = await ask_openai(it.openai, "hi", tools=[function], tool_choice="required")
        assert reply.choices[0].finish_reason == "tool_calls"
        assert reply.choices[0].message.tool_calls[0].function.name == "get_weather"
        message = await ask_anthropic(it.anthropic, "hi", tools=[tool], tool_choice={"type": "any"})
        assert message.stop_reason == "tool_use"
        assert set(message.content[0].input) == {"city"}
        async with it.anthropic.messages.stream(
            model="claude-haiku-4-5",
            max_tokens=200,
            messages=[{"role": "user", "content": "get_weather"}],
            tools=[{"name": "get_weather", "input_schema": schema}],
        ) as stream:
            gathered = await stream.get_final_message()
        assert set(gathered.content[0].model_dump()["input"]) == {"city"}


async def test_cached_tokens_are_part_of_openais_prompt_and_apart_from_anthropics() -> None:
    long = "A long preamble of many words. " * 300
    system: list[Any] = [{"type": "text", "text": long, "cache_control": {"type": "ephemeral"}}]
    async with running() as it:
        first = await ask_openai(it.openai, long + "1")
        again = await ask_openai(it.openai, long + "2")
        assert first.usage.prompt_tokens_details.cached_tokens == 0
        assert 1024 <= again.usage.prompt_tokens_details.cached_tokens <= again.usage.prompt_tokens
        written = (await ask_anthropic(it.anthropic, "1", system=system)).usage
        read = (await ask_anthropic(it.anthropic, "2", system=system)).usage
        assert written.cache_creation_input_tokens == read.cache_read_input_tokens == 2325
        assert written.cache_creation.ephemeral_5m_input_tokens == 2325
        assert written.input_tokens == read.input_tokens == 1


async def test_the_bill_is_the_sum_of_what_the_clients_were_billed() -> None:
    async with running() as it:
        replies = [await ask_openai(it.openai, f"question {n}") for n in range(20)]
        reported = sum(
            reply.usage.prompt_tokens * Decimal("0.00000015")
            + reply.usage.completion_tokens * Decimal("0.0000006")
            for reply in replies
        )
        report = it.engine.stats.report()
        assert Decimal(report["money"]["billed_usd"]) == reported
        assert report["prompts"] == {
            "distinct": 20,
            "seen_again": 0,
            "repeats": 0,
            "paid_again": 0,
            "top": [],
        }


async def test_anthropic_thinks_where_it_is_asked_to() -> None:
    more: Any = {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    async with running() as simulator:
        whole = await ask_anthropic(simulator.anthropic, "What is 15 * 37?", **more)
        message = {"role": "user", "content": "What is 15 * 37?"}
        asked: Any = {"model": "claude-haiku-4-5", "messages": [message], **more}
        async with simulator.anthropic.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert streamed.to_dict()["content"] == whole.to_dict()["content"]
    thought = whole.usage.output_tokens_details.thinking_tokens
    assert 0 < thought < whole.usage.output_tokens
    assert streamed.usage.output_tokens == whole.usage.output_tokens
