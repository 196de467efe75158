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

from workers.providers.simulator.acts import Behaviour
from workers.providers.simulator.engine import Engine
from workers.providers.simulator.limits import Limit, LimitTable
from workers.providers.simulator.server import Door, serving


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
        serving(Door(engine)) as url,
        openai.AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, timeout=10) as first,
        anthropic.AsyncAnthropic(api_key=key, base_url=url, max_retries=0, timeout=10) as second,
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
    async with asyncio.timeout(5):
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


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [
        ("400", openai.BadRequestError, anthropic.BadRequestError),
        ("401", openai.AuthenticationError, anthropic.AuthenticationError),
        ("403", openai.PermissionDeniedError, anthropic.PermissionDeniedError),
        ("404", openai.NotFoundError, anthropic.NotFoundError),
        ("429", openai.RateLimitError, anthropic.RateLimitError),
        ("quota", openai.RateLimitError, anthropic.EnforcedSpendLimitReachedError),
        ("context", openai.BadRequestError, anthropic.BadRequestError),
        ("filter-400", openai.BadRequestError, anthropic.BadRequestError),
        ("500", openai.InternalServerError, anthropic.InternalServerError),
        ("503", openai.InternalServerError, anthropic.ServiceUnavailableError),
        ("529", openai.InternalServerError, anthropic.OverloadedError),
        ("cut", openai.APIConnectionError, anthropic.APIConnectionError),
        ("cut-body", openai.APIConnectionError, anthropic.APIConnectionError),
    ],
)
async def test_faults_arrive_as_the_exceptions_of_each_sdk(
    fault: str, first: type[Exception], second: type[Exception]
) -> None:
    async with running() as it:
        for ask, client, wanted in (
            (ask_openai, it.openai, first),
            (ask_anthropic, it.anthropic, second),
        ):
            call: Any = ask
            with pytest.raises(wanted) as caught:
                await call(client, f"[[fault:{fault}]]")
            assert type(caught.value) is wanted
        await until(lambda: it.engine.tally.open_now == 0)
        assert it.engine.tally.faults.total() == 2
        assert it.engine.tally.cancelled == 0


async def test_error_bodies_carry_each_vendors_words() -> None:
    async with running() as it:
        with pytest.raises(openai.RateLimitError) as quota:
            await ask_openai(it.openai, "[[fault:quota]]")
        assert quota.value.code == "insufficient_quota"
        assert quota.value.request_id is not None
        with pytest.raises(openai.BadRequestError) as context:
            await ask_openai(it.openai, "[[fault:context]]")
        assert context.value.code == "context_length_exceeded"
        with pytest.raises(openai.RateLimitError) as late:
            await ask_openai(it.openai, "[[fault:429:retry-after=2:retry-after-ms=1500]]")
        assert late.value.response.headers["retry-after"] == "2"
        assert late.value.response.headers["retry-after-ms"] == "1500"
        with pytest.raises(openai.RateLimitError) as bare:
            await ask_openai(it.openai, "[[fault:429]]")
        assert "retry-after" not in bare.value.response.headers
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            await ask_anthropic(it.anthropic, "[[fault:529]]")
        body: Any = overloaded.value.body
        assert body["error"]["type"] == "overloaded_error"
        assert body["request_id"] == overloaded.value.response.headers["request-id"]
        with pytest.raises(anthropic.RateLimitError) as spent:
            await ask_anthropic(it.anthropic, "[[fault:quota]]")
        assert spent.value.error_code == "enforced_spend_limit_reached"


async def test_a_fault_with_a_count_ends() -> None:
    async with running() as it:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                await ask_openai(it.openai, "x [[fault:times=2:503]]")
        assert (await ask_openai(it.openai, "x [[fault:times=2:503]]")).choices


async def test_limits_refuse_with_the_vendors_headers() -> None:
    table = LimitTable(Limit(rpm=60, tpm=60_000))
    async with running(Behaviour(limits=table)) as it:
        raw = await it.openai.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}], max_tokens=50
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "60"
        assert raw.headers["x-ratelimit-remaining-tokens"] == "59949"
        assert raw.headers["x-ratelimit-reset-requests"] == "1s"
        with pytest.raises(openai.RateLimitError) as refused:
            await ask_openai(it.openai, "x")
        assert refused.value.code == "rate_limit_exceeded"
        assert 0 < int(refused.value.response.headers["retry-after-ms"]) <= 1000
        await ask_anthropic(it.anthropic, "x")
        with pytest.raises(anthropic.RateLimitError) as second:
            await ask_anthropic(it.anthropic, "x")
        assert second.value.response.headers["retry-after"] == "1"
        assert second.value.response.headers["anthropic-ratelimit-requests-limit"] == "60"
        assert it.engine.tally.refusals == {"rate_limit_requests": 2}
        assert it.engine.tally.accepted == 2


async def test_only_the_right_key_is_let_in_when_one_is_set() -> None:
    async with running(Behaviour(key="right"), key="wrong-key-123") as it:
        with pytest.raises(openai.AuthenticationError) as caught:
            await ask_openai(it.openai, "x")
        assert "wrong-key-123" not in str(caught.value)
        with pytest.raises(anthropic.AuthenticationError):
            await ask_anthropic(it.anthropic, "x")
    async with running(Behaviour(key="right"), key="right") as it:
        await ask_openai(it.openai, "x")
        await ask_anthropic(it.anthropic, "x")


async def test_a_model_outside_the_strict_list_does_not_exist() -> None:
    async with running(Behaviour(strict_models=("gpt-4o-mini",))) as it:
        await ask_openai(it.openai, "x")
        with pytest.raises(openai.NotFoundError) as caught:
            await ask_openai(it.openai, "x", model="gpt-9")
        assert caught.value.code == "model_not_found"
        assert [model.id async for model in it.openai.models.list()] == ["gpt-4o-mini"]
        with pytest.raises(anthropic.NotFoundError):
            await ask_anthropic(it.anthropic, "x", model="gpt-9")


async def test_an_answer_may_be_withheld_empty_or_garbled() -> None:
    async with running() as it:
        withheld = await ask_openai(it.openai, "[[fault:filter]]")
        assert withheld.choices[0].finish_reason == "content_filter"
        assert (await ask_openai(it.openai, "[[fault:empty]]")).choices == []
        refused = await ask_anthropic(it.anthropic, "[[fault:filter]]")
        assert refused.stop_reason == "refusal"
        assert (await ask_anthropic(it.anthropic, "[[fault:empty]]")).content == []
        raw = await it.openai.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "[[fault:garbage]]"}]
        )
        with pytest.raises(ValueError, match=r".+"):
            raw.parse()
        assert it.engine.tally.answered == 5


@pytest.mark.parametrize("fault", ["stall", "cut-body"])
async def test_a_stream_may_stall_or_break_after_its_first_part(fault: str) -> None:
    async with running() as it:
        stream = await ask_openai(it.openai, f"[[fault:{fault}]]", stream=True, timeout=0.5)
        got = []
        with pytest.raises(openai.APIConnectionError):  # noqa: PT012  raised by the last step
            async for chunk in stream:
                got.append(chunk)
        assert got
        await stream.close()
        await until(lambda: it.engine.tally.open_now == 0)
        assert it.engine.tally.undelivered == 1
        assert it.engine.tally.undelivered_usd == it.engine.tally.billed_usd > 0


async def test_a_stream_may_tell_of_an_error_after_its_first_part() -> None:
    async with running() as it:
        with pytest.raises(openai.APIError):
            async for _ in await ask_openai(it.openai, "[[fault:stream-error]]", stream=True):
                pass
        with pytest.raises(anthropic.APIStatusError):
            async for _ in await ask_anthropic(it.anthropic, "[[fault:stream-error]]", stream=True):
                pass


async def test_a_caller_who_leaves_early_is_counted_and_not_billed() -> None:
    async with running(Behaviour(latency_ms=60_000)) as it:
        call = asyncio.create_task(ask_openai(it.openai, "x"))
        await until(lambda: it.engine.tally.open_now == 1)
        call.cancel()
        await until(lambda: it.engine.tally.cancelled == 1)
        assert it.engine.tally.open_now == 0
        assert it.engine.tally.billed_usd == 0


async def test_a_slow_answer_takes_the_time_it_was_told_to() -> None:
    async with running() as it:
        began = time.monotonic()
        await ask_openai(it.openai, "[[fault:slow:ms=150]]")
        assert time.monotonic() - began >= 0.15
        began = time.monotonic()
        async for _ in await ask_openai(it.openai, "[[fault:slow=150]]", stream=True):
            pass
        assert time.monotonic() - began >= 0.14


async def test_the_bill_is_the_sum_of_what_the_clients_were_told() -> None:
    async with running() as it:
        replies = [await ask_openai(it.openai, f"question {n}") for n in range(20)]
        told = sum(
            reply.usage.prompt_tokens * Decimal("0.00000015")
            + reply.usage.completion_tokens * Decimal("0.0000006")
            for reply in replies
        )
        report = it.engine.tally.report()
        assert Decimal(report["money"]["billed_usd"]) == told
        assert report["prompts"] == {
            "distinct": 20,
            "seen_again": 0,
            "repeats": 0,
            "paid_again": 0,
            "top": [],
        }
