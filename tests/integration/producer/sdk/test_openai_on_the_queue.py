"""OpenAI's clients without a gateway: a worker, a simulated provider, and nothing that listens."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from pydantic import BaseModel

from headgate import Client, WrongUse
from headgate.openai import AsyncOpenAI, OpenAI
from headgate.shared.settings import Settings
from tests.support.child import BUSY, wait_until
from tests.support.installation import ended_afterwards, worker_process
from tests.support.played import settings_for
from tests.support.servers import Simulator, ValkeyServer

MODEL = "gpt-4o-mini"
MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "Tell me about tides."}
]
NEVER: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "[[fault:slow:ms=120000]] never"}
]
LONG: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "[[fault:drip:ms=20]] a long story"}
]
ALONE = {"headgate": {"cache": "off", "share": False}}


class River(BaseModel):
    """What the model is to answer with."""

    name: str
    length_km: int


@pytest.fixture
def settings(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[Settings]:
    simulator = simulator_factory("--latency-ms", "20")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    found = settings_for(valkey.url, sqlite_url, tmp_path / "home")
    worker = worker_process(env, tmp_path)
    with ended_afterwards(worker):
        worker.start()
        yield found


def test_calls_are_jobs_of_the_caller_and_errors_are_openais(settings: Settings) -> None:
    with OpenAI(settings, tenant="acme", user="u1") as sdk, Client(settings) as client:
        raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
        job = client.result(raw.headers["x-headgate-job-id"])
        assert raw.parse().choices[0].message.content == job.content
        assert client.jobs(tenant="acme", user="u1")[0].id == job.id
        assert [model.id for model in sdk.models.list() if model.id == MODEL] == [MODEL]
        vectors = sdk.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
        assert [len(one.embedding) for one in vectors.data] == [1536, 1536]
        with sdk.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces) == job.content
        assert len(pieces) > 3
        parsed = sdk.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=River)
        assert isinstance(parsed.choices[0].message.parsed, River)
        made = sdk.responses.create(model=MODEL, input="Tell me about tides.")
        assert made.output_text
        assert sdk.responses.retrieve(made.id).output_text == made.output_text
        bulk = sdk.with_options(default_headers={"x-headgate-priority": "bulk"})
        bulk.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1)
        assert client.jobs(limit=1)[0].priority == "bulk"
        with pytest.raises(openai.NotFoundError, match="gpt-nothing"):
            sdk.chat.completions.create(model="gpt-nothing", messages=MESSAGES)
        with pytest.raises(openai.APITimeoutError):
            sdk.with_options(timeout=0.5, max_retries=0).chat.completions.create(
                model=MODEL, messages=NEVER, extra_body=ALONE
            )
        left = client.jobs(limit=1)[0].id
        assert client.result(left, timeout_s=20 * BUSY).status == "cancelled"
        _threads_share_one_and_a_stream_that_is_left_cancels_its_job(sdk, client)
    with pytest.raises(RuntimeError, match="closed"):
        sdk.models.list()


def _threads_share_one_and_a_stream_that_is_left_cancels_its_job(
    sdk: OpenAI, client: Client
) -> None:
    answers: list[str | None] = []

    def ask(seed: int) -> None:
        done = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, seed=seed)
        answers.append(done.choices[0].message.content)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30 * BUSY)
    assert len(answers) == 8
    stream = sdk.chat.completions.create(
        model=MODEL, messages=LONG, stream=True, max_tokens=4000, extra_body=ALONE
    )
    next(iter(stream))
    job_id = client.jobs(limit=1)[0].id
    stream.close()
    assert client.result(job_id, timeout_s=20 * BUSY).status == "cancelled"
    if hasattr(os, "fork"):
        _a_child_asks_on_connections_of_its_own(sdk)
    sdk.models.list()


def _a_child_asks_on_connections_of_its_own(sdk: OpenAI) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            done = sdk.chat.completions.create(model=MODEL, messages=MESSAGES, seed=99)
            os._exit(0 if done.choices[0].message.content else 3)
        except BaseException:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


async def test_the_async_client_in_many_tasks_and_in_another_loop(settings: Settings) -> None:
    async with AsyncOpenAI(settings, tenant="acme") as sdk:

        async def ask(seed: int) -> str:
            stream = await sdk.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=True, seed=seed
            )
            found = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(found)

        answers = await asyncio.gather(*(ask(n) for n in range(20)))
        assert all(answers)

        def in_another_loop() -> str:
            async def once() -> str:
                found = await ask(5)
                await asyncio.sleep(0)
                return found

            return asyncio.run(once())

        assert await asyncio.to_thread(in_another_loop) == answers[5]
        waiting = asyncio.create_task(
            sdk.chat.completions.create(model=MODEL, messages=NEVER, extra_body=ALONE)
        )
        with Client(settings) as client:
            runs = lambda: bool(client.jobs(status="running"))  # noqa: E731
            await asyncio.to_thread(wait_until, runs, 20, "the start of the job")
            job_id = client.jobs(status="running")[0].id
            waiting.cancel()
            ended = await asyncio.to_thread(client.result, job_id, timeout_s=20 * BUSY)
        assert ended.status == "cancelled"


@pytest.mark.parametrize("kind", [OpenAI, AsyncOpenAI])
def test_an_address_or_a_key_is_refused(kind: type[OpenAI] | type[AsyncOpenAI]) -> None:
    with pytest.raises(WrongUse, match=r"base_url: .*openai\.OpenAI"):
        kind(base_url="http://gateway/v1")
    with pytest.raises(WrongUse, match=r"api_key: '\*\*\*': leave it out") as caught:
        kind(api_key="sk-secret")
    assert "sk-secret" not in str(caught.value)
    with pytest.raises(WrongUse, match="http_client: 'Client': leave it out"):
        kind(http_client=httpx2.Client())  # type: ignore[arg-type]  # of either kind
    with pytest.raises(WrongUse, match="settings"):
        kind("localhost")
