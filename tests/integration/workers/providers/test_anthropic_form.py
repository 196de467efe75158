"""Requests in Anthropic's form: they pass to the byte at Anthropic, and are translated elsewhere.

Each row of `tests/support/anthropic_matrix.py` is prepared, written as an envelope, read by a
worker, and asked of a recording vendor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from headgate.producer.submit.prepare import Prepared, Submitter
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
from tests.support.anthropic_matrix import FORM_MESSAGES, FORM_PARAMS, FormRow
from tests.support.recording_provider import GivenAnswer, RecordingProvider, recording_provider

CATALOG = catalog.load()
SUBMITTER = Submitter(Settings(), CATALOG)
CLAUDE = "claude-haiku-4-5"
ROWS = [*FORM_PARAMS, *FORM_MESSAGES]
REFUSED = [row for row in ROWS if row.outcome == "refused"]
CARRIED = [row for row in ROWS if row.outcome != "refused"]
HI = [{"role": "user", "content": "Hi"}]

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
def vendors() -> Iterator[dict[str, RecordingProvider]]:
    with (
        recording_provider(GivenAnswer(AT_OPENAI)) as openai,
        recording_provider(GivenAnswer(AT_ANTHROPIC)) as anthropic,
    ):
        yield {"openai": openai, "anthropic": anthropic}


@pytest.fixture
def openai(vendors: dict[str, RecordingProvider]) -> RecordingProvider:
    vendors["openai"].requests.clear()
    return vendors["openai"]


@pytest.fixture
def anthropic(vendors: dict[str, RecordingProvider]) -> RecordingProvider:
    vendors["anthropic"].requests.clear()
    return vendors["anthropic"]


def prepared(model: str, given: str = "", messages: str = json.dumps(HI), **more: Any) -> Prepared:
    fields = {"model": model, "dialect": "anthropic", "messages": loads(messages), **more}
    return SUBMITTER.prepare({**fields, "params": loads(f"{{{given}}}")})


async def ask(vendor: RecordingProvider, job: Prepared, most: int = 8192) -> Answer:
    """Ask as a worker does that has read the job's message."""
    envelope = Envelope.decode(loads(job.encoded))
    assert envelope.request.dialect == "anthropic"
    model = CATALOG.model(envelope.model)
    kind = AnthropicProvider if model.dialect == "anthropic" else OpenAIProvider
    provider = kind(name=model.provider, api_key="k", base_url=vendor.url)
    try:
        return await provider.ask(
            envelope.request, model=model.provider_name, max_output_tokens=most, timeout_s=30
        )
    finally:
        await provider.close()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_anthropics_dialect_sends_every_field_to_the_byte(
    row: FormRow, anthropic: RecordingProvider
) -> None:
    limited = '"max_tokens"' in row.given
    given = row.given if limited else ",".join(filter(None, [row.given, '"max_tokens":8192']))
    await ask(anthropic, prepared(CLAUDE, row.given, row.messages))
    wanted = f'{{"model":"{CLAUDE}","messages":{row.messages},{given}}}'
    if row.given.startswith('"anthropic_'):
        wanted = wanted.replace(f"{row.given},", "")
    assert anthropic.requests[0].body.decode() == wanted


@pytest.mark.parametrize("row", CARRIED, ids=lambda row: row.name)
async def test_openais_dialect_sends_what_the_table_says(
    row: FormRow, openai: RecordingProvider
) -> None:
    await ask(openai, prepared(row.model, row.given, row.messages))
    assert json.loads(openai.requests[0].body) == {
        "model": row.model,
        "messages": json.loads(row.messages) if row.turns is None else row.turns,
        **(json.loads(f"{{{row.given}}}") if row.openai is None else row.openai),
    }


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row.name)
async def test_what_openai_cannot_carry_is_refused_by_name_and_has_no_fallback_there(
    row: FormRow, openai: RecordingProvider
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        prepared(row.model, row.given, row.messages)
    assert caught.value.field == row.field
    assert row.model in caught.value.remedy
    assert "name a model of Anthropic's dialect" in caught.value.remedy

    job = prepared(CLAUDE, row.given, row.messages)
    first = CATALOG.model(CLAUDE)
    assert any(CATALOG.model(name).dialect == "openai" for name in first.fallback)
    chain = capabilities.chain(job.envelope.request, first, CATALOG)
    assert {getattr(one, "dialect", "") for one in chain} == {"anthropic"}
    assert CATALOG.model(prepared("auto", row.given, row.messages).envelope.model).dialect == (
        "anthropic"
    )

    # A worker with another catalog refuses it, too.
    late = job.envelope.model_copy(update={"model": row.model})
    with pytest.raises(ModelRefused, match="nothing like") as refused:
        await ask(openai, job._replace(encoded=late.encode()))
    assert row.field in str(refused.value)
    assert openai.requests == []


async def test_names_of_beta_features_are_a_header_of_their_call_only(
    anthropic: RecordingProvider,
) -> None:
    await ask(anthropic, prepared(CLAUDE, '"anthropic_beta":["a-1","b-2"]'))
    await ask(anthropic, prepared(CLAUDE))
    first, second = anthropic.requests
    assert first.headers["anthropic-beta"] == "a-1,b-2"
    assert b"beta" not in first.body
    assert "anthropic-beta" not in second.headers


async def test_the_version_of_the_api_is_the_callers_or_one_that_takes_a_temperature(
    anthropic: RecordingProvider,
) -> None:
    await ask(anthropic, prepared(CLAUDE, '"anthropic_version":"2026-10-21"'))
    await ask(anthropic, prepared(CLAUDE, '"temperature":0.5'))
    first, second = anthropic.requests
    assert first.headers["anthropic-version"] == "2026-10-21"
    assert b"version" not in first.body
    assert second.headers["anthropic-version"] == "2023-06-01"
    for wrong in ('"latest"', "20261021", '"2026-10-21\\r\\nx: y"'):
        with pytest.raises(InvalidRequest) as caught:
            prepared(CLAUDE, f'"anthropic_version":{wrong}')
        assert caught.value.field == "params.anthropic_version"


async def test_a_fallback_to_a_smaller_model_lowers_max_tokens_and_nothing_else(
    anthropic: RecordingProvider, openai: RecordingProvider
) -> None:
    given = '"max_tokens":9000,"top_k":5,"brand_new":1'
    await ask(anthropic, prepared(CLAUDE, given))
    wanted = {"max_tokens": 8192, "top_k": 5, "brand_new": 1}
    assert json.loads(anthropic.requests[0].body) == {"model": CLAUDE, "messages": HI, **wanted}
    await ask(openai, prepared("gpt-4o-mini", '"max_tokens":9000'))
    assert openai.requests[0].json()["max_tokens"] == 8192


async def test_a_prompt_is_a_message_of_the_user_in_both_dialects(
    anthropic: RecordingProvider, openai: RecordingProvider
) -> None:
    for vendor, model in ((anthropic, CLAUDE), (openai, "gpt-4o-mini")):
        fields = {"prompt": "Hi", "dialect": "anthropic", "model": model}
        answer = await ask(vendor, SUBMITTER.prepare({**fields, "params": {"system": "s"}}))
        assert answer.reply.content == "ok"
    assert anthropic.requests[0].json()["messages"] == HI
    assert openai.requests[0].json()["messages"] == [{"role": "system", "content": "s"}, *HI]
