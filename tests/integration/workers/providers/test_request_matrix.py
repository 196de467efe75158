"""Requests pass whole: the bytes that a vendor gets are compared with what the caller gave.

Each row of `tests/support/request_matrix.py` goes the way of a batch line: read, prepared, written
as an envelope, read by a worker, and asked of a recording vendor.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.producer.batch.formats import CHAT, submit_fields
from headgate.producer.batch.formats import EMBEDDINGS as EMBEDDINGS_URL
from headgate.producer.submit.prepare import Prepared, Submitter
from headgate.shared.admission.ticket import Ticket
from headgate.shared.catalog import catalog
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.encoding import loads
from headgate.shared.job.envelope import Envelope
from headgate.shared.routing import capabilities
from headgate.shared.settings import Settings
from headgate.workers.provider import Answer
from headgate.workers.providers.anthropic import AnthropicProvider
from headgate.workers.providers.openai import OpenAIProvider
from headgate.workers.providers.refusals import ModelRefused
from tests.support.recording_provider import GivenAnswer, RecordingProvider, recording_provider
from tests.support.request_matrix import (
    ANTHROPIC_PARAMS,
    ANY_PARAMS,
    EMBEDDINGS,
    MESSAGES,
    OPENAI_PARAMS,
    EmbeddingRow,
    Row,
)

CATALOG = catalog.load()
SUBMITTER = Submitter(Settings(), CATALOG)
GPT, CLAUDE, EMBEDDING = "gpt-4o-mini", "claude-haiku-4-5", "text-embedding-3-small"
CHATS = [*OPENAI_PARAMS, *ANTHROPIC_PARAMS, *ANY_PARAMS, *MESSAGES]
REFUSED = [row for row in CHATS if row.outcome == "refused"]
CARRIED = [row for row in CHATS if row.outcome != "refused"]

AT_OPENAI = {
    "choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1},
}
AT_ANTHROPIC = {
    "content": [{"type": "text", "text": "ok"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture(scope="module")
def vendors() -> Iterator[tuple[RecordingProvider, RecordingProvider]]:
    with (
        recording_provider(GivenAnswer(AT_OPENAI)) as openai,
        recording_provider(GivenAnswer(AT_ANTHROPIC)) as anthropic,
    ):
        yield openai, anthropic


@pytest.fixture
def openai(vendors: tuple[RecordingProvider, RecordingProvider]) -> RecordingProvider:
    vendors[0].requests.clear()
    return vendors[0]


@pytest.fixture
def anthropic(vendors: tuple[RecordingProvider, RecordingProvider]) -> RecordingProvider:
    vendors[1].requests.clear()
    return vendors[1]


def body_of(row: Row, model: str) -> str:
    rest = f",{row.given}" if row.given else ""
    return f'{{"model":"{model}","messages":{row.messages}{rest}}}'


def prepared(body: str, url: str = CHAT) -> Prepared:
    line = loads(f'{{"custom_id":"a","method":"POST","url":"{url}","body":{body}}}')
    return SUBMITTER.prepare(submit_fields(line, {}))


async def ask(vendor: RecordingProvider, job: Prepared) -> Answer:
    """Ask as a worker does that has read the job's message."""
    envelope = Envelope.decode(loads(job.encoded))
    model = CATALOG.model(envelope.model)
    kind = AnthropicProvider if model.dialect == "anthropic" else OpenAIProvider
    provider = kind(name=model.provider, api_key="k", base_url=vendor.url)
    try:
        return await provider.ask(
            envelope.request, model=model.provider_name, max_output_tokens=8192, timeout_s=30
        )
    finally:
        await provider.close()


@pytest.mark.parametrize("row", CHATS, ids=lambda row: row.name)
async def test_openais_dialect_sends_every_field_to_the_byte(
    row: Row, openai: RecordingProvider
) -> None:
    body = body_of(row, GPT)
    await ask(openai, prepared(body))
    # This address is not OpenAI's own: it knows the old name only.
    wanted = body.replace("max_completion_tokens", "max_tokens")
    assert openai.requests[0].body.decode() == wanted


@pytest.mark.parametrize("row", CARRIED, ids=lambda row: row.name)
async def test_anthropics_dialect_sends_what_the_table_says(
    row: Row, anthropic: RecordingProvider
) -> None:
    body = body_of(row, CLAUDE)
    await ask(anthropic, prepared(body))
    given = loads(body)
    rest = {name: value for name, value in given.items() if name not in ("model", "messages")}
    wanted = {
        "model": CLAUDE,
        "max_tokens": 8192,
        "messages": given["messages"] if row.turns is None else row.turns,
        **({"system": row.system} if row.system else {}),
        **(rest if row.anthropic is None else row.anthropic),
    }
    sent = anthropic.requests[0].body
    assert json.loads(sent) == wanted
    if row.outcome == "passes":  # numbers and texts as they were written
        assert row.given.encode() in sent


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
async def test_what_anthropic_cannot_carry_is_refused_by_name_and_has_no_fallback_there(
    row: Row, anthropic: RecordingProvider
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prepared(body_of(row, CLAUDE))
    assert caught.value.field == row.field
    assert CLAUDE in caught.value.remedy

    job = prepared(body_of(row, GPT))
    first = CATALOG.model(GPT)
    assert any(CATALOG.model(name).dialect == "anthropic" for name in first.fallback)
    chain = capabilities.chain(job.envelope.request, first, CATALOG)
    assert {getattr(one, "dialect", "") for one in chain} == {"openai"}

    # Releases before checked nothing of it: the worker refuses their jobs.
    request = job.envelope.request.model_copy(update={"model": CLAUDE})
    late = job.envelope.model_copy(update={"request": request, "model": CLAUDE})
    with pytest.raises(ModelRefused, match="nothing like") as refused:
        await ask(anthropic, job._replace(encoded=late.encode()))
    assert row.field in str(refused.value)
    assert anthropic.requests == []


@pytest.mark.parametrize("row", ANTHROPIC_PARAMS, ids=lambda row: row.name)
def test_what_only_anthropic_has_is_no_request_for_a_fallback_of_openais(row: Row) -> None:
    job = prepared(body_of(row, CLAUDE))
    first = CATALOG.model(CLAUDE)
    assert any(CATALOG.model(name).dialect == "openai" for name in first.fallback)
    chain = capabilities.chain(job.envelope.request, first, CATALOG)
    assert {getattr(one, "dialect", "") for one in chain} == {"anthropic"}


@pytest.mark.parametrize("row", EMBEDDINGS, ids=lambda row: row.name)
async def test_an_embedding_job_is_sent_to_the_byte(row: EmbeddingRow) -> None:
    body = f'{{"model":"{EMBEDDING}",{row.given}}}'
    job = prepared(body, EMBEDDINGS_URL)
    count = len(job.envelope.request.inputs)
    packed = base64.b64encode(struct.pack("<2f", 0.5, -0.25)).decode()
    vector = packed if "base64" in row.given else [0.5, -0.25]
    rows = [{"index": i, "embedding": vector} for i in range(count)]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    with recording_provider(GivenAnswer({"data": rows, "usage": usage})) as vendor:
        answer = await ask(vendor, job)
    assert vendor.requests[0].body.decode() == body
    assert answer.reply.embeddings == [[0.5, -0.25]] * count
    if row.tokens is not None:
        assert Ticket.decode(job.ticket).input_tokens == row.tokens


async def test_a_snapshot_and_a_fine_tune_are_asked_by_their_full_names(
    openai: RecordingProvider, anthropic: RecordingProvider
) -> None:
    for model in ("gpt-4o-mini-2024-07-18", "ft:gpt-4o-mini-2024-07-18:acme::abc"):
        await ask(openai, prepared(f'{{"model":"{model}","messages":{HI_TEXT}}}'))
        assert openai.requests[-1].json()["model"] == model
    await ask(anthropic, prepared(f'{{"model":"claude-haiku-4-5-20251001","messages":{HI_TEXT}}}'))
    assert anthropic.requests[-1].json()["model"] == "claude-haiku-4-5-20251001"


HI_TEXT = '[{"role":"user","content":"Hi"}]'


@pytest.mark.parametrize(
    ("body", "user", "metadata"),
    [
        ('"user":"u1","metadata":{"a":"b"},"store":true', "u1", {"a": "b"}),
        ('"user":"","metadata":null', None, {}),
        ('"user":null,"metadata":{}', None, {}),
    ],
)
async def test_user_and_metadata_of_a_body_are_sent_and_are_ours_too(
    body: str, user: str | None, metadata: dict[str, Any], openai: RecordingProvider
) -> None:
    whole = f'{{"model":"{GPT}","messages":{HI_TEXT},{body}}}'
    job = prepared(whole)
    await ask(openai, job)
    assert openai.requests[0].body.decode() == whole
    assert (job.envelope.request.user, job.envelope.request.metadata) == (user, metadata)


async def test_our_own_user_and_metadata_are_never_sent(
    openai: RecordingProvider, anthropic: RecordingProvider
) -> None:
    ours = {"prompt": "Hi", "user": "secret-u", "tenant": "secret-t", "metadata": {"k": "secret-m"}}
    for vendor, model in ((openai, GPT), (anthropic, CLAUDE)):
        await ask(vendor, SUBMITTER.prepare({**ours, "model": model}))
        sent = vendor.requests[0]
        assert b"secret" not in sent.body
        assert not any("secret" in value for value in sent.headers.values())
