"""Long answers come as a stream that nobody asked for, and end as if they had come whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from headgate.shared.catalog import catalog
from headgate.shared.cost.price import price
from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError, AttemptTimeout, RequestRefused
from headgate.workers.provider import Answer, Provider
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.server import SimulatorServer, serving
from headgate.workers.stages.call import Call, Upstream
from tests.support.fake_vendor import Script, Visit, vendor
from tests.support.recording_provider import GivenAnswer, recording_provider
from tests.support.vendor_answers import VENDOR_ANSWERS, VendorAnswer

CATALOG = catalog.load()
LONG = {"openai": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}
"""Models of 32,768 and 64,000 tokens, without a time limit of their own."""

SAID = {one.dialect: one for one in reversed(VENDOR_ANSWERS) if one.content}
"""A text of each dialect."""

DIALECTS = pytest.mark.parametrize("dialect", LONG)
ASKED = Request(prompt="Tell me")
SHORT = Request(prompt="Tell me", params={"max_tokens": 64})
HOUR_MS = 3_600_000


@asynccontextmanager
async def calling(
    dialect: str, url: str, timeout_s: float = 60, models: catalog.Catalog = CATALOG
) -> AsyncIterator[Call]:
    made: Provider
    if dialect == "openai":
        made = OpenAIProvider(name="openai", api_key="k", base_url=url)
    else:
        made = AnthropicProvider(name="anthropic", api_key="k", base_url=url)
    call = Call(models, lambda _: [Upstream(made, "key0")], timeout_s=timeout_s)
    try:
        yield call
    finally:
        await call.close()


@asynccontextmanager
async def at_vendor(dialect: str, script: Script, timeout_s: float) -> AsyncIterator[Call]:
    async with (
        vendor(script) as server,
        calling(dialect, f"http://127.0.0.1:{server.port}/v1", timeout_s) as call,
    ):
        yield call


async def ask(call: Call, dialect: str, request: Request, left_ms: int = HOUR_MS) -> Answer:
    model = CATALOG.model(LONG[dialect])
    upstream = await call.upstream(model)
    assert upstream is not None
    return await call.ask(upstream, request, model, left_ms=left_ms)


def as_json(message: object) -> bytes:
    """Return the message as JSON; a stream may tell its fields in another order."""
    return orjson.dumps(message, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("sent", VENDOR_ANSWERS, ids=lambda sent: f"{sent.dialect}-{sent.feature}")
async def test_message_usage_and_cost_are_those_of_the_plain_answer(sent: VendorAnswer) -> None:
    model = CATALOG.model(LONG[sent.dialect])
    with recording_provider(sent.given()) as vendor:
        async with calling(sent.dialect, vendor.url) as call:
            plain = await ask(call, sent.dialect, SHORT)
            streamed = await ask(call, sent.dialect, ASKED)
    bodies = [one.json() for one in vendor.requests]
    assert ["stream" in body for body in bodies] == [False, True]
    wanted = {"include_usage": True} if sent.dialect == "openai" else None
    assert bodies[1].get("stream_options") == wanted
    assert as_json(streamed.reply.message) == as_json(plain.reply.message) == as_json(sent.body)
    assert streamed.reply == plain.reply
    assert streamed.counted
    costs = [price(one.reply.usage, model, CATALOG, terms=one.terms) for one in (plain, streamed)]
    assert costs[0] == costs[1]


@DIALECTS
async def test_the_simulator_says_the_same_in_both_ways(dialect: str) -> None:
    engine = Engine(Behaviour(key="k"), time.monotonic, time.time)
    model = CATALOG.model(LONG[dialect])
    async with serving(SimulatorServer(engine)) as url, calling(dialect, f"{url}/v1") as call:
        streamed = await ask(call, dialect, ASKED)
        upstream = await call.upstream(model)
        assert upstream is not None
        most = model.max_output_tokens
        plain = await upstream.provider.ask(
            ASKED, model=model.name, max_output_tokens=most, timeout_s=60
        )
    assert comparable(streamed) == comparable(plain)


def comparable(answer: Answer) -> tuple[object, ...]:
    """All of an answer that two calls have in common."""
    message: Mapping[str, Any] = answer.reply.message or {}
    reply = replace(answer.reply, request_id=None, message=None)
    common = {name: value for name, value in message.items() if name not in ("id", "created")}
    return reply, as_json(without_empty(common)), answer.counted, answer.terms


def without_empty(value: Any) -> Any:
    """Return the value without nulls and empty lists: streams leave them out."""
    if isinstance(value, dict):
        return {
            name: without_empty(one) for name, one in value.items() if one is not None and one != []
        }
    return [without_empty(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("dialect", "request_"),
    [
        ("openai", SHORT),
        ("anthropic", SHORT),
        ("openai", Request(prompt="Sing", params={"modalities": ["text", "audio"]})),
    ],
)
async def test_what_is_short_or_fits_no_stream_is_asked_for_whole(
    dialect: str, request_: Request
) -> None:
    sent = SAID[dialect]
    with recording_provider(sent.given()) as vendor:
        async with calling(dialect, vendor.url) as call:
            await ask(call, dialect, request_)
    assert "stream" not in vendor.requests[0].json()


@pytest.mark.parametrize("usage", [None, "never"])
async def test_a_vendor_that_may_tell_no_usage_in_streams_is_asked_for_whole(
    usage: str | None,
) -> None:
    unknown = CATALOG.providers["openai"].model_copy(update={"stream_usage": usage})
    models = CATALOG.model_copy(update={"providers": {**CATALOG.providers, "openai": unknown}})
    sent = SAID["openai"]
    with recording_provider(sent.given()) as vendor:
        async with calling("openai", vendor.url, models=models) as call:
            await ask(call, "openai", ASKED)
    assert "stream" not in vendor.requests[0].json()


# ------------------------------------------------------------------ vendors that do otherwise


@DIALECTS
async def test_a_vendor_that_ignores_stream_answers_whole(dialect: str) -> None:
    sent = SAID[dialect]
    with recording_provider(GivenAnswer(sent.body)) as vendor:
        async with calling(dialect, vendor.url) as call:
            answer = await ask(call, dialect, ASKED)
    assert vendor.requests[0].json()["stream"] is True
    assert answer.reply.message == sent.body


async def test_a_vendor_that_refuses_to_stream_is_asked_for_whole_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    why = "Your organization must be verified to stream this model."
    refusal = {"error": {"message": why, "type": "invalid_request_error", "param": "stream"}}
    sent = SAID["openai"]
    with recording_provider(GivenAnswer(refusal, status=400), sent.given()) as vendor:
        async with calling("openai", vendor.url) as call:
            answers = [await ask(call, "openai", ASKED) for _ in range(2)]
    assert [answer.reply.message for answer in answers] == [sent.body] * 2
    assert ["stream" in one.json() for one in vendor.requests] == [True, False, False]
    assert caplog.messages == [
        "openai does not stream gpt-4.1-mini as needed; for an hour it is asked for whole answers: "
        f"HTTP 400: {why}"
    ]


async def test_a_refusal_of_the_request_itself_is_no_reason_to_ask_again() -> None:
    refusal = {"error": {"message": "no such parameter", "type": "invalid_request_error"}}
    with recording_provider(GivenAnswer(refusal, status=400)) as vendor:
        async with calling("openai", vendor.url) as call:
            with pytest.raises(RequestRefused, match="no such parameter"):
                await ask(call, "openai", ASKED)
    assert len(vendor.requests) == 1


async def test_a_stream_that_came_without_usage_is_the_last_one() -> None:
    sent = SAID["openai"]
    events = [{**event, "usage": None} for event in sent.events]
    with recording_provider(GivenAnswer(sent.body, [*events, "[DONE]"])) as vendor:
        async with calling("openai", vendor.url) as call:
            answers = [await ask(call, "openai", ASKED) for _ in range(2)]
    assert [answer.counted for answer in answers] == [False, True]
    assert ["stream" in one.json() for one in vendor.requests] == [True, False]


# ------------------------------------------------------------------ time


def streaming(silence: float, *, times: int) -> Script:
    """A vendor that says something so many times, each after a silence, and then all of it."""

    async def script(visit: Visit) -> None:
        sent = SAID["anthropic" if visit.path.endswith("/messages") else "openai"]
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        await visit.send(head.encode())
        pieces = sent.given().pieces()
        await visit.send(pieces[0])
        for _ in range(times):
            await asyncio.sleep(silence)
            await visit.send(b": still at it\n\n")
        await visit.send(b"".join(pieces[1:]))
        visit.writer.close()

    return script


@DIALECTS
async def test_an_answer_may_take_longer_than_the_time_limit_if_its_bytes_keep_coming(
    dialect: str,
) -> None:
    async with at_vendor(dialect, streaming(0.5, times=17), timeout_s=6) as call:
        began = time.monotonic()
        answer = await ask(call, dialect, ASKED)
    assert answer.reply.content == SAID[dialect].content
    assert time.monotonic() - began > 8


@DIALECTS
@pytest.mark.parametrize("begins", [True, False])
async def test_a_vendor_that_falls_silent_is_a_timeout_after_the_time_limit(
    dialect: str, begins: bool
) -> None:
    async def nothing(_: Visit) -> None:
        await asyncio.sleep(3600)

    script = streaming(3600, times=1) if begins else nothing
    async with at_vendor(dialect, script, timeout_s=1) as call:
        with pytest.raises(AttemptTimeout, match="no byte of the answer for 1 s") as caught:
            await ask(call, dialect, ASKED)
    assert caught.value.billed is None


async def test_an_endless_stream_ends_with_the_time_that_the_job_has() -> None:
    async with at_vendor("openai", streaming(0.1, times=10_000), timeout_s=60) as call:
        with pytest.raises(AttemptError, match="no answer within 2 s") as caught:
            await ask(call, "openai", ASKED, left_ms=2000)
    assert caught.value.code == "timeout"
