"""The providers against the simulator: two readings of the vendors' papers that have to agree."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from datetime import time as time_of_day
from typing import Any

import pytest

from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError, Gate
from headgate.workers.provider import Answer, AnswerSink
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from headgate.workers.providers.rate_headers import seen
from headgate.workers.simulator.behaviour import Behaviour
from headgate.workers.simulator.engine import Engine
from headgate.workers.simulator.limits import LimitTable, SimulatedLimit
from headgate.workers.simulator.server import SimulatorServer, serving
from tests.support.sinks import RecordingSink

Provider = OpenAIProvider | AnthropicProvider
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
NO_LIMIT = SimulatedLimit()
DIALECTS = pytest.mark.parametrize("dialect", ["openai", "anthropic"])


@asynccontextmanager
async def simulated(
    dialect: str, key: str = "k", limits: SimulatedLimit = NO_LIMIT
) -> AsyncIterator[Provider]:
    behaviour = Behaviour(key="k", limits=LimitTable(limits))
    engine = Engine(behaviour, time.monotonic, time.time)
    async with serving(SimulatorServer(engine)) as url:
        by: Provider
        if dialect == "openai":
            by = OpenAIProvider(name=dialect, api_key=key, base_url=f"{url}/v1")
        else:
            by = AnthropicProvider(name=dialect, api_key=key, base_url=url)
        try:
            yield by
        finally:
            await by.close()


async def ask(
    by: Provider,
    dialect: str,
    request: Request,
    timeout_s: float = 60,
    sink: AnswerSink | None = None,
) -> Answer:
    model = "text-embedding-3-small" if request.embeds else MODELS[dialect]
    return await by.ask(
        request, model=model, max_output_tokens=4096, timeout_s=timeout_s, sink=sink
    )


@DIALECTS
async def test_a_prompt_is_answered_and_counted(dialect: str) -> None:
    params: dict[str, Any] = {"max_tokens": 50, "temperature": 0.2, "stop": ["END"]}
    async with simulated(dialect) as by:
        answer = await ask(by, dialect, Request(prompt="Why is the sky blue?", params=params))
    assert answer.reply.content
    assert answer.reply.finish_reason in ("stop", "length")
    assert answer.counted
    assert 0 < answer.reply.usage.output_tokens <= 50
    assert answer.reply.usage.input_tokens > 0
    assert answer.reply.request_id


async def test_embeddings_are_the_same_in_numbers_and_in_base64() -> None:
    async with simulated("openai") as by:
        plain = await ask(by, "openai", Request(input=["one", "two"]))
        asked = Request(input=["one", "two"], params={"encoding_format": "base64"})
        packed = await ask(by, "openai", asked)
    assert plain.reply.embeddings is not None
    assert packed.reply.embeddings is not None
    for one, other in zip(plain.reply.embeddings, packed.reply.embeddings, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


@DIALECTS
@pytest.mark.parametrize(
    ("fault", "code", "billed"),
    [
        ("429:retry-after=3", "rate_limited", False),
        ("429:retry-after-ms=250", "rate_limited", False),
        ("quota", "provider_quota", False),
        ("quota:until=2999-12-01", "provider_quota", False),
        ("slow_down", "rate_limited", False),
        ("flex", "overloaded", False),
        ("context", "context_length", False),
        ("filter-400", "content_filtered", ...),
        ("400", "invalid_request", False),
        ("401", "authentication", False),
        ("403", "permission", False),
        ("404", "provider_error", False),
        ("413", "invalid_request", False),
        ("500", "provider_error", None),
        ("502", "provider_error", None),
        ("503", "overloaded", ...),
        ("504", "timeout", None),
        ("529", "overloaded", False),
        ("stall", "timeout", None),
        ("cut", "connection", None),
        ("cut-body", "connection", None),
        ("garbage", "invalid_output", None),
    ],
)
async def test_each_fault_of_the_simulator_is_understood(
    dialect: str, fault: str, code: str, billed: object
) -> None:
    async with simulated(dialect) as by:
        timeout_s = 2 if fault == "stall" else 60
        with pytest.raises(AttemptError) as caught:
            await ask(by, dialect, Request(prompt=f"hello [[fault:{fault}]]"), timeout_s)
    assert caught.value.code == code
    assert billed is ... or caught.value.billed is billed
    if fault.startswith("429"):
        assert caught.value.retry_after_ms == (250 if "ms" in fault else 3000)


@DIALECTS
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("429", "limited"),
        ("slow_down", "slow"),
        ("529", "overloaded"),
        ("503", "overloaded"),
        ("flex", "flex"),
        ("quota", "money"),
        ("quota:until=DAY", "money"),
        ("500", None),
        ("400", None),
        ("cut", None),
    ],
)
async def test_a_refusal_says_what_it_means_for_its_pool(
    dialect: str, fault: str, kind: str | None
) -> None:
    day = datetime.now(UTC).date() + timedelta(days=10)
    fault = fault.replace("DAY", day.isoformat())
    async with simulated(dialect) as by:
        with pytest.raises(AttemptError) as caught:
            await ask(by, dialect, Request(prompt=f"hello [[fault:{fault}:retry-after=2]]"))
    gate = caught.value.gate
    if kind == "flex" and dialect == "anthropic":
        kind = "overloaded"  # it has no such tier
    assert (gate.kind if gate else None) == kind
    until = datetime.combine(day, time_of_day(), UTC).timestamp() * 1000
    if gate is not None:
        # OpenAI names no day.
        names_a_day = dialect == "anthropic" and "until" in fault
        assert gate.until_ms == (until if names_a_day else None)
        assert caught.value.retry_after_ms == 2000


@DIALECTS
async def test_a_request_larger_than_the_limit_concerns_nobody_else(dialect: str) -> None:
    async with simulated(dialect, limits=SimulatedLimit(rpm=60, tpm=100)) as by:
        with pytest.raises(AttemptError) as caught:
            await ask(by, dialect, Request(prompt="x" * 4000, params={"max_tokens": 10}))
    assert caught.value.code == "rate_limited"
    # Anthropic's text does not tell such a request from any other.
    assert caught.value.gate == (None if dialect == "openai" else Gate("limited"))


@DIALECTS
async def test_answers_and_refusals_report_the_limits(dialect: str) -> None:
    async with simulated(dialect, limits=SimulatedLimit(rpm=60, tpm=60_000)) as by:
        # So many that the bucket is not full again before the second call: full, it tells nothing.
        asked = Request(prompt="hello", params={"max_tokens": 50_000})
        answer = await ask(by, dialect, asked)
        with pytest.raises(AttemptError) as caught:
            await ask(by, dialect, asked)
    for headers in (answer.headers, caught.value.headers):
        found = {str(one.measure): one for one in seen(headers, time.time())}
        tokens = ["tpm"] if dialect == "openai" else ["input_tpm", "output_tpm"]
        assert [found[measure].limit for measure in tokens] == [60_000] * len(tokens)
    assert caught.value.gate == Gate("limited")
    assert caught.value.retry_after_ms is not None


@DIALECTS
async def test_a_withheld_answer_is_an_answer_of_the_filter(dialect: str) -> None:
    async with simulated(dialect) as by:
        answer = await ask(by, dialect, Request(prompt="hello [[fault:filter]]"))
    assert answer.reply.finish_reason == "content_filter"


@DIALECTS
async def test_a_wrong_key_is_named_as_such(dialect: str) -> None:
    async with simulated(dialect, key="sk-wrong-key-1") as by:
        with pytest.raises(AttemptError) as caught:
            await ask(by, dialect, Request(prompt="hello"))
    assert caught.value.code == "authentication"
    assert "wrong-key" not in str(caught.value)


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
        },
    },
}


@DIALECTS
async def test_a_streamed_answer_is_the_same_as_a_whole_one(dialect: str) -> None:
    changes: list[dict[str, Any]] = [
        {"prompt": "Why is the sky blue?"},
        {"prompt": "x", "params": {"max_tokens": 3}},
        {"prompt": "y", "params": {"service_tier": "flex" if dialect == "openai" else "auto"}},
        {"prompt": "grün " * 50, "params": {"stop": ["the"]}},
        {"prompt": "Answer in JSON", "params": {"response_format": {"type": "json_object"}}},
        {"prompt": "What weather?", "params": {"tools": [TOOL], "tool_choice": "required"}},
        {"prompt": "What weather?", "params": {"tools": [TOOL], "tool_choice": "required",
                                               "max_tokens": 4}},
        {"prompt": "hello [[fault:filter]]"},
        {"prompt": "hello [[fault:empty]]"} if dialect == "anthropic" else {"prompt": "hi"},
    ]  # fmt: skip
    async with simulated(dialect) as by:
        for fields in changes:
            pieces = RecordingSink()
            asked = Request(**fields)
            # Asked twice first: the simulator counts what it has seen before as cached input.
            await ask(by, dialect, asked)
            whole = await ask(by, dialect, asked)
            streamed = await ask(by, dialect, asked, sink=pieces)
            same = replace(
                streamed.reply, request_id=whole.reply.request_id, message=whole.reply.message
            )
            assert same == replace(whole.reply, tool_calls=same.tool_calls)
            calls = [
                [call["function"] for call in one.reply.tool_calls or []]
                for one in (whole, streamed)
            ]
            assert calls[0] == calls[1]
            assert bool(whole.reply.tool_calls) == ("tools" in asked.params)
            assert "".join(pieces.texts) == (whole.reply.content or "")
            assert streamed.counted
            assert streamed.terms == whole.terms
            assert streamed.reply.request_id
            assert without_ids(streamed.reply.message) == without_ids(whole.reply.message)


def without_ids(value: Any) -> Any:
    """Return a message without what each answer has anew, and without fields that are empty."""
    if isinstance(value, list):
        return [without_ids(one) for one in value]
    if not isinstance(value, dict):
        return value
    names = [name for name, one in value.items() if one not in (None, [])]
    return {name: without_ids(value[name]) for name in names if name not in ("id", "created")}


@DIALECTS
@pytest.mark.parametrize(
    ("fault", "code", "billed", "begun"),
    [
        ("stream-error", "provider_error", None, True),
        ("cut", "connection", None, False),
        ("cut-body", "connection", None, True),
        ("stall", "timeout", None, True),
        ("garbage", "invalid_output", None, True),
        ("429", "rate_limited", False, False),
        ("500", "provider_error", None, False),
    ],
)
async def test_each_fault_of_a_stream_is_understood(
    dialect: str, fault: str, code: str, billed: bool | None, begun: bool
) -> None:
    pieces = RecordingSink()
    asked = Request(prompt=f"hello [[fault:{fault}]]")
    if fault == "stream-error" and dialect == "anthropic":
        code = "overloaded"
    async with simulated(dialect) as by:
        with pytest.raises(AttemptError) as caught:
            await ask(by, dialect, asked, 3 if fault == "stall" else 60, pieces)
        assert (caught.value.code, caught.value.billed) == (code, billed)
        assert bool(pieces.texts) == begun
        # What broke has left nothing behind on the wire.
        assert (await ask(by, dialect, Request(prompt="next"), sink=pieces)).reply


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HI = [{"role": "user", "content": "Hi"}]
AMID: list[dict[str, Any]] = [
    *HI,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-5-5"])
@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
async def test_each_effort_is_one_that_claude_takes(model: str, effort: str) -> None:
    wish = {"reasoning_effort": effort, "tools": [TOOL], "max_tokens": 20_000}
    asked = [
        Request(messages=HI, params=wish),
        Request(messages=AMID, params=wish),
        Request(messages=HI, params={**wish, "tool_choice": "required"}),
        Request(messages=HI, params={**wish, "temperature": 1.5}),
    ]
    async with simulated("anthropic") as by:
        for request in asked:
            answer = await by.ask(request, model=model, max_output_tokens=64_000, timeout_s=60)
            assert answer.reply.content or answer.reply.tool_calls


@pytest.mark.parametrize("streamed", [False, True])
@DIALECTS
async def test_a_request_in_anthropics_form_is_answered_by_both(
    dialect: str, streamed: bool
) -> None:
    use = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "sunny"}
    request = Request(
        dialect="anthropic",
        messages=[
            *HI,
            {"role": "assistant", "content": [thought, use]},
            {"role": "user", "content": [result]},
        ],
        params={
            "max_tokens": 2000,
            "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        },
    )
    pieces = RecordingSink()
    async with simulated(dialect) as by:
        answer = await ask(by, dialect, request, sink=pieces if streamed else None)
    assert answer.reply.content
    assert "".join(pieces.texts) == (answer.reply.content if streamed else "")
    assert (answer.reply.usage.reasoning_tokens > 0) is (dialect == "anthropic")
