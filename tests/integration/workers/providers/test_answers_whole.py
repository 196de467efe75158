"""What a vendor sent is the message of the answer, plain and streamed."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from headgate.shared.job.request import Request
from headgate.workers.provider import Answer, AnswerSink, Unread
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from tests import ROOT
from tests.support.recording_provider import GivenAnswer, recording_provider
from tests.support.sinks import RecordingSink
from tests.support.vendor_answers import VENDOR_ANSWERS, VendorAnswer

MADE: dict[str, Callable[..., OpenAIProvider | AnthropicProvider]] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
}
BOUND_S = 30.0
ASKED = Request(prompt="Tell me")

each_answer = pytest.mark.parametrize(
    "sent", VENDOR_ANSWERS, ids=lambda sent: f"{sent.dialect}-{sent.feature}"
)


async def asked(
    dialect: str, given: GivenAnswer, request: Request, sink: AnswerSink | None = None
) -> Answer:
    """Return the answer of a vendor of this dialect."""
    with recording_provider(given) as vendor:
        by = MADE[dialect](name=dialect, api_key="sk-test-1", base_url=vendor.url)
        try:
            return await by.ask(
                request, model="m", max_output_tokens=64, timeout_s=BOUND_S, sink=sink
            )
        finally:
            await by.close()


@each_answer
async def test_a_plain_answer_comes_back_byte_for_byte(sent: VendorAnswer) -> None:
    answer = await asked(sent.dialect, sent.given(), ASKED)
    assert orjson.dumps(answer.reply.message) == orjson.dumps(sent.body)
    assert (answer.reply.content, answer.reply.finish_reason) == (sent.content, sent.finish_reason)
    assert answer.counted


@pytest.mark.parametrize("cut", [0, 7, 1000])
@each_answer
async def test_a_streamed_answer_is_equal_to_the_plain_one(sent: VendorAnswer, cut: int) -> None:
    pieces = RecordingSink()
    plain = await asked(sent.dialect, sent.given(), ASKED)
    answer = await asked(sent.dialect, sent.given(cut), ASKED, pieces)
    assert as_json(answer.reply.message) == as_json(sent.body)
    assert "".join(pieces.texts) == (sent.content or "")
    assert (answer.reply, answer.terms) == (plain.reply, plain.terms)


async def test_a_vendor_that_does_not_stream_answers_whole() -> None:
    sent = VENDOR_ANSWERS[0]
    answer = await asked("openai", GivenAnswer(sent.body), ASKED, Unread())
    assert answer.reply.message == sent.body


async def test_the_message_of_embeddings_has_all_but_the_vectors() -> None:
    rows = [
        {"object": "embedding", "index": 1, "embedding": [0.5, 1.0]},
        {"object": "embedding", "index": 0, "embedding": [0.25, 2.0], "new": "x"},
    ]
    body = {"object": "list", "data": rows, "model": "e-3", "usage": {"prompt_tokens": 4}, "id": 7}
    answer = await asked("openai", GivenAnswer(body), Request(input=["a", "b"]))
    assert answer.reply.embeddings == [[0.25, 2.0], [0.5, 1.0]]
    bare = [{"object": "embedding", "index": 1}, {"object": "embedding", "index": 0, "new": "x"}]
    assert answer.reply.message == {**body, "data": bare}


@pytest.mark.parametrize("dialect", MADE)
async def test_what_is_nested_too_deep_to_be_stored_is_null_and_the_rest_is_kept(
    dialect: str,
) -> None:
    deep = b"[" * 900 + b"1" + b"]" * 900
    sent = next(one for one in VENDOR_ANSWERS if one.dialect == dialect and one.content)
    body = orjson.dumps(sent.body)[:-1] + b', "deep": ' + deep + b', "after": 1}'
    answer = await asked(dialect, GivenAnswer(body), ASKED)
    message = answer.reply.message
    assert message is not None
    kept, levels = message.pop("deep"), 0
    while kept:
        [kept], levels = kept, levels + 1
    assert levels > 100
    assert message == {**sent.body, "after": 1}


def as_json(message: object) -> bytes:
    """Return the message as JSON; a stream may tell its fields in another order."""
    return orjson.dumps(message, option=orjson.OPT_SORT_KEYS)


def test_the_docs_name_every_feature_that_is_tested() -> None:
    page = (ROOT / "docs" / "answers.md").read_text()
    rows = {tuple(cell.strip() for cell in row.split("|")[1:3]) for row in page.splitlines()}
    assert {(sent.feature, sent.dialect) for sent in VENDOR_ANSWERS} <= rows
