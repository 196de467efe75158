"""What a vendor sends back is in the result, whole: wherever a result is read, and however got."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from celery import Celery
from celery.result import AsyncResult

from headgate import Client, Request
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.command import headgate
from tests.support.recorded_installation import asking
from tests.support.recording_provider import GivenAnswer, RecordingProvider, recording_provider
from tests.support.servers import ValkeyServer
from tests.support.vendor_answers import VENDOR_ANSWERS, VendorAnswer

MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
WAIT_S = 60


@pytest.fixture
def vendor() -> Iterator[RecordingProvider]:
    """A vendor of both dialects, whose answers each test sets."""
    with recording_provider() as running:
        yield running


@pytest.fixture
def env(
    vendor: RecordingProvider, valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The settings of an installation with a worker that asks the vendor."""
    anthropic = {"ANTHROPIC_API_KEY": "sk-test-anthropic", "ANTHROPIC_BASE_URL": vendor.url}
    with asking(vendor, valkey, sqlite_url, tmp_path, **anthropic) as env:
        yield env


@pytest.fixture
def client(env: dict[str, str]) -> Iterator[Client]:
    """A client of the installation."""
    settings = Settings(
        home=Path(env["HEADGATE_HOME"]),
        redis_url=env["HEADGATE_REDIS_URL"],
        database_url=env["HEADGATE_DATABASE_URL"],
    )
    with Client(settings) as opened:
        yield opened


def as_json(message: object) -> bytes:
    """Return the message as JSON, whatever the order of its fields."""
    return orjson.dumps(message, option=orjson.OPT_SORT_KEYS)


def fields_for(sent: VendorAnswer, **more: Any) -> dict[str, Any]:
    """Return a request that the vendor is to answer with this; workers ask for it whole."""
    short = {"params": {"max_tokens": 1000}}
    return {
        "prompt": sent.feature, "model": MODELS[sent.dialect], "fallback": False, **short, **more,
    }  # fmt: skip


def test_each_answer_is_whole_plain_streamed_and_from_the_cache(
    client: Client, env: dict[str, str], vendor: RecordingProvider
) -> None:
    url = env["HEADGATE_REDIS_URL"]
    celery = Celery("stranger", broker=url, backend=url, set_as_current=False)
    for sent in VENDOR_ANSWERS:
        vendor.answers[:] = [sent.given(chunk=9)]
        plain = client.submit(**fields_for(sent)).result(timeout_s=WAIT_S)
        assert orjson.dumps(plain.message) == orjson.dumps(sent.body), sent.feature
        assert (plain.content, plain.finish_reason) == (sent.content, sent.finish_reason)
        by_celery: AsyncResult[Any] = AsyncResult(plain.id, app=celery)
        assert by_celery.get(timeout=WAIT_S) == plain.as_json()

        streamed = client.submit(**fields_for(sent, stream=True, cache={"mode": "off"}))
        assert "".join(client.stream(streamed.id, timeout_s=WAIT_S)) == (sent.content or "")
        assert as_json(streamed.result(timeout_s=WAIT_S).message) == as_json(sent.body)

        asked = len(vendor.requests)
        hit = client.submit(**fields_for(sent, user="another")).result(timeout_s=WAIT_S)
        assert (hit.cached, len(vendor.requests)) == ("exact", asked)
        assert orjson.dumps(hit.message) == orjson.dumps(sent.body)
    celery.close()


def test_followers_replays_commands_and_batches_have_the_message_too(
    client: Client, env: dict[str, str], vendor: RecordingProvider, tmp_path: Path
) -> None:
    openai, anthropic = (one for one in VENDOR_ANSWERS if one.feature in ("logprobs", "citations"))
    vendor.answers[:] = [replace(openai.given(), delay_s=1.0)]
    together = client.submit_many([Request(**fields_for(openai, prompt="equal"))] * 5)
    found = [client.result(one, timeout_s=WAIT_S) for one in together]
    assert [one.message for one in found] == [openai.body] * 5
    assert len(vendor.requests) == 1

    vendor.answers[:] = [anthropic.given()]
    keyed = [client.submit(**fields_for(anthropic, idempotency_key="k")) for _ in range(2)]
    assert {one.result(timeout_s=WAIT_S).id for one in keyed} == {keyed[0].id}
    told = headgate(["result", keyed[1].id, "--json"], env)
    assert told.code == 0
    assert orjson.dumps(told.document["message"]) == orjson.dumps(anthropic.body)

    lines = [
        {"custom_id": one.dialect, "prompt": f"line {one.feature}", "model": MODELS[one.dialect]}
        for one in (openai, anthropic)
    ]
    bodies: dict[str, Any] = {}
    for line, sent in zip(lines, (openai, anthropic), strict=True):
        vendor.answers[:] = [sent.given()]
        source, output = tmp_path / f"{sent.dialect}.jsonl", tmp_path / f"{sent.dialect}.out"
        source.write_text(json.dumps(line) + "\n")
        assert headgate(["batch", "run", source, "-o", output], env).code == 0
        [bodies[sent.dialect]] = installation.lines_of(output)
    assert bodies["openai"]["response"]["body"] == openai.body
    assert bodies["anthropic"]["headgate"]["message"] == anthropic.body
    said = bodies["anthropic"]["response"]["body"]["choices"][0]["message"]["content"]
    assert said == anthropic.content


def test_a_refusal_is_an_answer_without_content_and_is_told_as_such(
    client: Client, env: dict[str, str], vendor: RecordingProvider
) -> None:
    sent = next(one for one in VENDOR_ANSWERS if one.feature == "refusal")
    vendor.answers[:] = [sent.given()]
    for how in (["--wait"], ["--stream"]):
        command = ["submit", f"refuse {how}", "--model", "gpt-4o-mini", *how]
        ended = headgate(command, env, timeout_s=WAIT_S)
        assert (ended.code, ended.out.strip()) == (0, "")
        assert "the model refused: I cannot help." in ended.err
    assert len(vendor.requests) == 2, "a refusal is no failure: nothing is asked again"
    result = client.submit(**fields_for(sent)).result(timeout_s=WAIT_S)
    assert (result.status, result.content, result.finish_reason) == ("succeeded", None, "stop")
    assert result.refusal == "I cannot help."

    called = next(one for one in VENDOR_ANSWERS if one.feature == "function_call")
    vendor.answers[:] = [called.given()]
    ended = headgate(["submit", "call", "--model", "gpt-4o-mini", "--wait"], env, timeout_s=WAIT_S)
    assert (ended.code, ended.document) == (0, called.body), "no answer is shown as nothing"


def test_a_turn_that_anthropic_paused_can_be_continued_from_its_message(
    client: Client, vendor: RecordingProvider
) -> None:
    paused = next(one for one in VENDOR_ANSWERS if one.feature == "pause_turn")
    ended = next(one for one in VENDOR_ANSWERS if one.feature == "server tools")
    vendor.answers[:] = [paused.given(), ended.given()]
    asked: list[dict[str, Any]] = [{"role": "user", "content": "Search"}]
    model = MODELS["anthropic"]
    first = client.submit(messages=asked, model=model).result(timeout_s=WAIT_S)
    assert (first.status, first.finish_reason) == ("succeeded", "pause_turn")
    assert first.message is not None
    asked.append({"role": "assistant", "content": first.message["content"]})
    second = client.submit(messages=asked, model=model).result(timeout_s=WAIT_S)
    assert second.finish_reason == "stop"
    sent_back = vendor.requests[1].json()["messages"][1]
    assert orjson.dumps(sent_back["content"]) == orjson.dumps(paused.body["content"])


def test_embeddings_have_the_message_without_the_vectors(
    client: Client, env: dict[str, str], vendor: RecordingProvider, tmp_path: Path
) -> None:
    body = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.5]}],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "id": "embd-1",
    }
    vendor.answers[:] = [GivenAnswer(body)]
    model = "text-embedding-3-small"
    result = client.submit(input=["a"], model=model).result(timeout_s=WAIT_S)
    assert result.embeddings == [[0.5, -1.5]]
    assert result.message == {**body, "data": [{"object": "embedding", "index": 0}]}
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    line = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings",
            "body": {"model": model, "input": ["b"]}}  # fmt: skip
    source.write_text(json.dumps(line) + "\n")
    assert headgate(["batch", "run", source, "-o", output], env).code == 0
    [written] = installation.lines_of(output)
    assert written["response"]["body"] == body
