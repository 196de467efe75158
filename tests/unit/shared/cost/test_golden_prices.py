"""What vendors' usage blocks cost, each computed by hand from the vendors' price lists.

The blocks have the forms of the vendors' documentation: whole replies, ends of streams, batch
lines. Prices are USD per million tokens, as of 2026-11-20.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate.shared.catalog.catalog import load
from headgate.shared.catalog.faults import CatalogErrors
from headgate.shared.cost.price import price, to_pico
from headgate.shared.errors import CatalogError
from headgate.shared.job.request import Request
from headgate.workers.provider import Answer
from headgate.workers.providers.anthropic import read_message
from headgate.workers.providers.chat_parts import ChatParts
from headgate.workers.providers.http import Response
from headgate.workers.providers.message_parts import MessageParts
from headgate.workers.providers.openai import read_chat, read_embeddings
from headgate.workers.providers.streaming import AnswerStream

CATALOG = load()
DAY = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
OK = Response(200, {}, b"")
ASKED = Request(prompt="Hi")
M = 1_000_000
D = Decimal
Fields = dict[str, Any]


def chat(usage: Fields, tier: str | None = "default") -> Answer:
    """Return the answer of a chat completion without streaming."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    return read_chat({"choices": [choice], "usage": usage, "service_tier": tier}, OK, ASKED)


def chat_stream(usage: Fields, tier: str = "default") -> Answer:
    """The same in chunks: the last has no choices and the usage; the others say null."""
    stream = AnswerStream(ChatParts(lambda _: None))
    choice: Fields = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    for chunk in (
        {"choices": [choice], "usage": None, "service_tier": tier},
        {"choices": [{**choice, "delta": {}, "finish_reason": "stop"}], "usage": None},
        {"choices": [], "usage": usage},
    ):
        stream.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")
    stream.feed(b"data: [DONE]\n\n")
    return read_chat(stream.whole_or_raise(OK, ASKED, ""), OK, ASKED)


def chat_batch(usage: Fields) -> Answer:
    """Return the answer of a batch's output line, whose body says `default` as service tier."""
    answer = chat(usage)
    return replace(answer, terms=replace(answer.terms, service_tier="batch"))


def vectors(usage: Fields) -> Answer:
    """Return the answer of an embeddings call."""
    row = {"index": 0, "embedding": [0.5]}
    return read_embeddings({"data": [row], "usage": usage}, OK, Request(input="x"))


def message(usage: Fields) -> Answer:
    """Return the answer of an Anthropic message, or of a line of a batch (`service_tier`)."""
    body = {"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "usage": usage}
    return read_message(body, OK, json_only=False)


def message_stream(started: Fields, *deltas: Fields) -> Answer:
    """The same as events: input at the start, output cumulative in the deltas."""
    stream = AnswerStream(MessageParts(lambda _: None))
    events: list[Fields] = [
        {"type": "message_start", "message": {"content": [], "usage": started}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        *(
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
            for usage in deltas
        ),
        {"type": "message_stop"},
    ]
    for event in events:
        stream.feed(b"data: " + orjson.dumps(event) + b"\n\n")
    return read_message(stream.whole_or_raise(OK, ASKED, ""), OK, json_only=False)


def tokens(prompt: int, completion: int, **details: int) -> Fields:
    """OpenAI's block: the prompt includes what was cached or written, the completion reasoning."""
    of_prompt = ("cached_tokens", "cache_write_tokens", "audio_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {k: v for k, v in details.items() if k in of_prompt},
        "completion_tokens_details": {k: v for k, v in details.items() if k not in of_prompt},
    }


def told(
    fresh: int, output: int, *, read: int = 0, short: int = 0, hour: int = 0, **also: Any
) -> Fields:
    """Anthropic's block: `input_tokens` is only what follows the last cache mark."""
    return {
        "input_tokens": fresh,
        "cache_creation_input_tokens": short + hour,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": hour,
        },
        "output_tokens": output,
        "service_tier": "standard",
        "inference_geo": "global",
        **also,
    }


GOLDEN: dict[str, tuple[str, Answer, Decimal]] = {
    "chat, nothing cached": (
        "gpt-4o", chat(tokens(1000, 500)),
        (1000 * D("2.50") + 500 * D("10")) / M,
    ),
    "chat, cached input is a part of the prompt": (
        "gpt-4o", chat(tokens(2006, 300, cached_tokens=1920)),
        (86 * D("2.50") + 1920 * D("1.25") + 300 * D("10")) / M,
    ),
    "chat, reasoning is a part of the completion": (
        "gpt-5.4", chat(tokens(75, 1186, cached_tokens=0, reasoning_tokens=1024)),
        (75 * D("2.50") + 1186 * D("15")) / M,
    ),
    "chat, a rejected prediction is billed as output": (
        "gpt-4.1", chat(
            tokens(100, 180, accepted_prediction_tokens=80, rejected_prediction_tokens=60)
        ),
        (100 * D("2") + 180 * D("8")) / M,
    ),
    "chat, writes to the cache since 5.6 cost a quarter more": (
        "gpt-6-sol", chat(tokens(5000, 200, cached_tokens=1024, cache_write_tokens=3000)),
        (976 * D("2") + 1024 * D("0.20") + 3000 * D("2.50") + 200 * D("10")) / M,
    ),
    "chat, a long prompt is dearer as a whole": (
        "gpt-5.4", chat(tokens(300_000, 1000, cached_tokens=100_000)),
        (200_000 * D("5") + 100_000 * D("0.50") + 1000 * D("22.50")) / M,
    ),
    "chat, served as flex": (
        "gpt-5.4", chat(tokens(1000, 400, cached_tokens=512), tier="flex"),
        (488 * D("2.50") + 512 * D("0.25") + 400 * D("15")) / M / 2,
    ),
    "chat, asked as flex and served as default": (
        "gpt-5.4", chat(tokens(1000, 400), tier="default"),
        (1000 * D("2.50") + 400 * D("15")) / M,
    ),
    "chat, served as priority": (
        "gpt-4o-mini", chat(tokens(1000, 400, cached_tokens=256), tier="priority"),
        (744 * D("0.25") + 256 * D("0.125") + 400 * D("1.00")) / M,
    ),
    "stream of a chat, its usage at the end": (
        "gpt-4o-mini", chat_stream(tokens(19, 10)),
        (19 * D("0.15") + 10 * D("0.60")) / M,
    ),
    "stream of a chat, served as flex": (
        "gpt-6.1-sol", chat_stream(tokens(19, 11), tier="flex"),
        (19 * D("2") + 11 * D("10")) / M / 2,
    ),
    "line of a batch": (
        "gpt-5.5", chat_batch(tokens(2000, 100, cached_tokens=1024, reasoning_tokens=64)),
        (976 * D("5") + 1024 * D("0.50") + 100 * D("30")) / M / 2,
    ),
    "line of a batch, no discount on cached input before gpt-5": (
        "gpt-4o", chat_batch(tokens(2000, 100, cached_tokens=1024)),
        (2000 * D("1.25") + 100 * D("5")) / M,
    ),
    "embeddings": (
        "text-embedding-3-large", vectors({"prompt_tokens": 8, "total_tokens": 8}),
        8 * D("0.13") / M,
    ),
    "message, input follows the last cache mark": (
        "claude-sonnet-5", message(told(21, 305, read=188_086)),
        (21 * D("2") + 188_086 * D("0.20") + 305 * D("10")) / M,
    ),
    "message, writes for five minutes and for an hour": (
        "claude-sonnet-5", message(told(50, 100, read=1800, short=248, hour=100)),
        (50 * D("2") + 1800 * D("0.20") + 248 * D("2.50") + 100 * D("4") + 100 * D("10")) / M,
    ),
    "message, thinking is a part of the output": (
        "claude-opus-5", message(told(40, 900, output_tokens_details={"thinking_tokens": 700})),
        (40 * D("5") + 900 * D("25")) / M,
    ),
    "message, reads at a twentieth on newer models": (
        "claude-opus-5-5", message(told(10, 10, read=10_000)),
        (10 * D("4") + 10_000 * D("0.20") + 10 * D("20")) / M,
    ),
    "message, computed in the US only": (
        "claude-opus-4-8", message(told(1000, 100, hour=7, inference_geo="us")),
        (1000 * D("5") + 7 * D("10") + 100 * D("25")) / M * D("1.1"),
    ),
    "message, searches are paid one by one": (
        "claude-sonnet-4-6", message(told(7000, 50, server_tool_use={"web_search_requests": 3})),
        (7000 * D("3") + 50 * D("15")) / M + 3 * D("10") / 1000,
    ),
    "message, a long prompt counts with what was read of it": (
        "claude-haiku-5-5", message(told(1, 10, read=100_000)),
        (1 * D("0.50") + 100_000 * D("0.05") + 10 * D("2.50")) / M,
    ),
    "stream of a message, counts are cumulative": (
        "claude-haiku-4-5", message_stream(
            told(25, 1, short=1000), {"output_tokens": 7}, {"output_tokens": 15}
        ),
        (25 * D("1") + 1000 * D("1.25") + 15 * D("5")) / M,
    ),
    "stream of a message, the hour's writes are told at its start": (
        "claude-haiku-4-5", message_stream(told(25, 1, hour=1000), {"output_tokens": 15}),
        (25 * D("1") + 1000 * D("2") + 15 * D("5")) / M,
    ),
    "line of a batch of messages": (
        "claude-sonnet-5", message(told(9, 125, read=2048, hour=512, service_tier="batch")),
        (9 * D("2") + 2048 * D("0.20") + 512 * D("4") + 125 * D("10")) / M / 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", GOLDEN)
def test_a_usage_block_costs_what_is_reckoned_by_hand(what: str) -> None:
    name, answer, usd = GOLDEN[what]
    cost = price(answer.reply.usage, CATALOG.model(name), CATALOG, DAY, answer.terms)
    assert cost == usd
    assert answer.counted
    to_pico(usd)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("gpt-4o", chat(tokens(10, 10), tier="scale")),  # bought ahead
        ("gpt-5.5", chat(tokens(10, 10), tier="priority")),
        ("claude-opus-5", message(told(10, 10, service_tier="priority"))),  # bought ahead
        ("claude-opus-5", message(told(10, 10, speed="fast"))),
        ("gpt-4o", chat(tokens(10, 10, audio_tokens=5))),
    ],
)
def test_what_has_no_known_price_costs_null(name: str, answer: Answer) -> None:
    assert price(answer.reply.usage, CATALOG.model(name), CATALOG, DAY, answer.terms) is None


def test_a_catalog_may_price_a_tier(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        '[providers.openai.factors]\nscale = "0"\n[prices."gpt-5.5".tiers]\n'
        'priority = { input = "10", output = "60" }\nflex = "0.4999999"\n'
    )
    own = load(file)

    def cost(answer: Answer) -> Decimal | None:
        return price(answer.reply.usage, own.model("gpt-5.5"), own, DAY, answer.terms)

    assert cost(chat(tokens(100, 10), "priority")) == (100 * D("10") + 10 * D("60")) / M
    assert cost(chat(tokens(100, 10), "scale")) == 0
    # 5 * 0.4999999 are 2,499,999.5 pico: a part of one is rounded up
    assert cost(chat(tokens(1, 0), "flex")) == D("0.0000025")
    assert cost(chat(tokens(100, 10))) == (100 * D("5") + 10 * D("30")) / M


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[providers.openai.factors]\nflex = 0.5", "providers.openai.factors.flex"),
        ('[providers.openai.factors]\nflex = "-1"', '"0" to "100"'),
        ('[prices."gpt-4o"]\ncached_input = "1"', 'prices."gpt-4o": '),
        ('[prices."gpt-4o".tiers]\nflex = { output = "1" }', "tiers.flex"),
    ],
)
def test_a_bad_price_of_a_tier_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(line)
    with pytest.raises((CatalogError, CatalogErrors)) as caught:
        load(file)
    assert said in str(caught.value)
