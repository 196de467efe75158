"""What goes wrong on purpose, as the vendors' own SDKs see it: limits, faults, lost callers."""

import asyncio
import time
from typing import Any

import anthropic
import openai
import pytest

from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.limits import LimitTable, SimulatedLimit
from tests.integration.workers.simulator.test_sdks import ask_anthropic, ask_openai, running, until


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
        await until(lambda: it.engine.stats.open_now == 0)
        assert it.engine.stats.faults.total() == 2
        assert it.engine.stats.cancelled == 0


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
    table = LimitTable(SimulatedLimit(rpm=1, tpm=60_000))
    async with running(Behaviour(limits=table)) as it:
        raw = await it.openai.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "x"}], max_tokens=50
        )
        assert raw.headers["x-ratelimit-limit-requests"] == "1"
        assert raw.headers["x-ratelimit-remaining-tokens"] == "59949"
        assert raw.headers["x-ratelimit-reset-requests"] == "1m0s"
        with pytest.raises(openai.RateLimitError) as refused:
            await ask_openai(it.openai, "x")
        assert refused.value.code == "rate_limit_exceeded"
        assert 0 < int(refused.value.response.headers["retry-after-ms"]) <= 60_000
        await ask_anthropic(it.anthropic, "x")
        with pytest.raises(anthropic.RateLimitError) as second:
            await ask_anthropic(it.anthropic, "x")
        assert 0 < int(second.value.response.headers["retry-after"]) <= 60
        assert second.value.response.headers["anthropic-ratelimit-requests-limit"] == "1"
        assert it.engine.stats.refusals == {"rate_limit_requests": 2}
        assert it.engine.stats.accepted == 2


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
        assert it.engine.stats.answered == 5


@pytest.mark.parametrize("fault", ["stall", "cut-body"])
async def test_a_stream_may_stall_or_break_after_its_first_part(fault: str) -> None:
    async with running() as it:
        stream = await ask_openai(it.openai, f"[[fault:{fault}]]", stream=True, timeout=3)
        got = []
        with pytest.raises(openai.APIConnectionError):  # noqa: PT012  raised by the last step
            async for chunk in stream:
                got.append(chunk)
        assert got
        await stream.close()
        await until(lambda: it.engine.stats.open_now == 0)
        assert it.engine.stats.undelivered == 1
        assert it.engine.stats.undelivered_usd == it.engine.stats.billed_usd > 0


async def test_a_stream_may_report_an_error_after_its_first_part() -> None:
    async with running() as it:
        with pytest.raises(openai.APIError):
            async for _ in await ask_openai(it.openai, "[[fault:stream-error]]", stream=True):
                pass
        with pytest.raises(anthropic.APIStatusError):
            async for _ in await ask_anthropic(it.anthropic, "[[fault:stream-error]]", stream=True):
                pass


@pytest.mark.parametrize("fault", ["large:mb=2", "bomb:mb=2"])
async def test_a_flood_is_an_answer_of_that_size_for_each_sdk_whole_and_streamed(
    fault: str,
) -> None:
    async with running() as it:
        asked = f"[[fault:{fault}]]"
        plain = (await ask_openai(it.openai, asked)).choices[0].message.content
        chunks = [one async for one in await ask_openai(it.openai, asked, stream=True)]
        text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        message = (await ask_anthropic(it.anthropic, asked)).content[0].text
        assert {len(plain), len(text), len(message)} == {2 * 1024 * 1024}
        assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("fault", ["endless", "endless-line", "drip:ms=10"])
async def test_a_flood_without_end_goes_on_until_its_caller_leaves(fault: str) -> None:
    async with running() as it:
        call = asyncio.create_task(ask_openai(it.openai, f"[[fault:{fault}]]", timeout=60))
        await until(lambda: it.engine.stats.accepted == 1)
        await asyncio.sleep(0.5)
        assert not call.done()
        call.cancel()
        await until(lambda: it.engine.stats.open_now == 0)
        assert it.engine.stats.cancelled == 1


async def test_an_error_body_may_have_any_size() -> None:
    async with running() as it:
        with pytest.raises(openai.InternalServerError) as caught:
            await ask_openai(it.openai, "[[fault:500:mb=2]]")
        assert len(caught.value.response.content) > 2 * 1024 * 1024


async def test_a_caller_who_leaves_early_is_counted_and_not_billed() -> None:
    async with running(Behaviour(latency_ms=60_000)) as it:
        call = asyncio.create_task(ask_openai(it.openai, "x"))
        await until(lambda: it.engine.stats.open_now == 1)
        call.cancel()
        await until(lambda: it.engine.stats.cancelled == 1)
        await until(lambda: it.engine.stats.open_now == 0)
        assert it.engine.stats.billed_usd == 0


async def test_a_slow_answer_takes_the_time_that_was_asked_for() -> None:
    async with running() as it:
        began = time.monotonic()
        await ask_openai(it.openai, "[[fault:slow:ms=150]]")
        assert time.monotonic() - began >= 0.15
        began = time.monotonic()
        async for _ in await ask_openai(it.openai, "[[fault:slow=150]]", stream=True):
            pass
        assert time.monotonic() - began >= 0.14
