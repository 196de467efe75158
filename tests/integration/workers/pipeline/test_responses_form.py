"""Jobs in the form of Responses, from a client to a worker and the vendors' addresses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response

from headgate import Client, JobFailed
from headgate.shared.catalog.access import digest_of
from headgate.shared.errors import InvalidRequest
from headgate.shared.settings import Settings
from tests.support.child import BUSY
from tests.support.command import headgate
from tests.support.installation import ended_afterwards, worker_process
from tests.support.servers import Simulator, ValkeyServer, short_folder

WAIT_S = 60 * BUSY
MODEL = "gpt-4o-mini"
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


KEYS = ("sk-first-key-of-the-test", "sk-second-key-of-the-test")
CATALOG = """
[providers.openai]
api_key_env = ["OPENAI_API_KEY", "OPENAI_SECOND_KEY"]
[pools."openai/gpt-4o-mini"]
rpm = 600
"""


@dataclass
class Running:
    """A client, and the simulator that the worker asks."""

    client: Client
    simulator: Simulator
    env: dict[str, str]

    def paths(self) -> dict[str, int]:
        """How often each address was asked."""
        counted: dict[str, int] = self.simulator.stats()["by_path"]
        return counted


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("responses")
    with short_folder() as short:
        catalog = folder / "catalog.toml"
        catalog.write_text(CATALOG)
        valkey, simulator = ValkeyServer(short, lasting=True), Simulator(folder, lasting=True)
        with ended_afterwards(valkey, simulator):
            valkey.start()
            simulator.start()
            env = {
                "HEADGATE_HOME": str(folder / "home"),
                "HEADGATE_REDIS_URL": valkey.url,
                "HEADGATE_DATABASE_URL": f"sqlite:///{folder / 'headgate.db'}",
                "OPENAI_API_KEY": KEYS[0],
                "OPENAI_SECOND_KEY": KEYS[1],
                "HEADGATE_CATALOG": str(catalog),
                "OPENAI_BASE_URL": f"{simulator.url}/v1",
                "ANTHROPIC_API_KEY": "sk-test",
                "ANTHROPIC_BASE_URL": simulator.url,
            }
            assert headgate(["db", "upgrade"], env).code == 0
            worker = worker_process(env, folder)
            with ended_afterwards(worker):
                worker.start()
                with Client(_settings(env)) as client:
                    yield Running(client, simulator, env)


def _settings(env: dict[str, str]) -> Settings:
    return Settings(
        home=Path(env["HEADGATE_HOME"]),
        redis_url=env["HEADGATE_REDIS_URL"],
        database_url=env["HEADGATE_DATABASE_URL"],
    )


def test_input_and_instructions_are_a_job_that_the_vendor_answers_as_a_response(
    running: Running,
) -> None:
    job = running.client.submit(input="Why?", instructions="Be kind.", model=MODEL)
    result = job.result(timeout_s=WAIT_S)
    message: Any = result.message
    assert message["object"] == "response"
    assert message["instructions"] == "Be kind."
    assert result.content == message["output"][0]["content"][0]["text"]
    assert result.usage.input_tokens == message["usage"]["input_tokens"]
    assert result.cost_usd not in (None, "0")
    assert running.paths() == {"/v1/responses": 1}


def test_the_same_job_is_translated_for_claude_and_refused_where_a_field_is_lost(
    running: Running,
) -> None:
    before = running.paths().get("/v1/messages", 0)
    asked: Any = {
        "dialect": "responses",
        "input": [{"role": "user", "content": "What does weather say?"}],
        "params": {"tools": [WEATHER], "max_output_tokens": 200},
    }
    result = running.client.submit(**asked, model="claude-haiku-4-5").result(timeout_s=WAIT_S)
    assert result.finish_reason == "tool_calls"
    assert running.paths()["/v1/messages"] == before + 1
    lost = {**asked, "params": {"previous_response_id": "resp_1"}}
    with pytest.raises(InvalidRequest, match=r"params\.previous_response_id"):
        running.client.submit(**lost, model="claude-haiku-4-5")


def test_equal_requests_share_an_answer_but_not_with_what_the_vendor_has_on_record(
    running: Running,
) -> None:
    def cached(**params: Any) -> list[str | None]:
        fields: Any = {"dialect": "responses", "input": "The same?", "model": MODEL}
        return [
            running.client.submit(**fields, params=params).result(timeout_s=WAIT_S).cached
            for _ in range(2)
        ]

    assert cached() == [None, "exact"]
    assert cached(conversation="conv_1") == [None, None]
    assert cached(store=False) == [None, None]


def test_the_text_streams_while_the_response_is_made(running: Running) -> None:
    job = running.client.submit(
        input="Stream?", instructions="Slowly.", model=MODEL, stream=True, events=True
    )
    text = "".join(running.client.stream(job.id))
    assert text == job.result(timeout_s=WAIT_S).content


def test_a_job_is_pinned_to_the_key_that_has_its_conversation_on_record(running: Running) -> None:
    def told(digest: str | None, response_id: str, number: int) -> Any:
        return {
            "dialect": "responses", "input": f"And {number}?", "model": MODEL,
            "params": {"previous_response_id": response_id},
            "pinned": {"provider": "openai", "key": digest},
        }  # fmt: skip

    first: list[Any] = [
        {"input": f"Begin {n}", "instructions": "x", "model": MODEL} for n in range(6)
    ]
    begun = [
        running.client.result(one, wait=True, timeout_s=WAIT_S)
        for one in running.client.submit_many(first)
    ]
    assert {one.provider_key for one in begun} == set(map(digest_of, KEYS))
    follow = [
        told(one.provider_key, (one.message or {})["id"], n)
        for n, one in enumerate(begun)
        for _ in range(3)
    ]
    after = [
        running.client.result(one, wait=True, timeout_s=WAIT_S)
        for one in running.client.submit_many(follow)
    ]
    assert [one.status for one in after] == ["succeeded"] * len(follow)
    assert [one.attempts for one in after] == [1] * len(follow)
    wanted = [request["pinned"]["key"] for request in follow]
    assert [one.provider_key for one in after] == wanted

    gone = running.client.submit(**told("f" * 16, "resp_1", 9))
    with pytest.raises(JobFailed, match="on record is not set"):
        gone.result(timeout_s=WAIT_S)
    with pytest.raises(InvalidRequest, match="pinned to openai"):
        running.client.submit(**{**told("f" * 16, "resp_1", 9), "model": "claude-haiku-4-5"})


def test_lines_of_a_batch_come_back_as_responses(running: Running, tmp_path: Path) -> None:
    bodies = [
        {"model": MODEL, "input": "One?", "store": False, "metadata": {"run": "7"}},
        {"model": "claude-haiku-4-5", "input": [{"role": "user", "content": "Two?"}]},
        {"model": "claude-haiku-4-5", "input": "x", "tools": [{"type": "web_search"}]},
    ]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(
        json.dumps({"custom_id": f"c{n}", "method": "POST", "url": "/v1/responses", "body": body})
        + "\n" for n, body in enumerate(bodies)
    ))  # fmt: skip
    run = headgate(["batch", "run", str(source), "-o", str(output), "--max-tokens", "60"],
                   running.env)  # fmt: skip
    assert run.code == 1, run
    lines = {line["custom_id"]: line for line in map(json.loads, output.read_text().splitlines())}
    for name, model in (("c0", MODEL), ("c1", "claude-haiku-4-5")):
        body = lines[name]["response"]["body"]
        Response.model_validate(body)
        assert (body["object"], body["model"], body["max_output_tokens"]) == ("response", model, 60)
        assert body["output"][0]["content"][0]["text"]
    assert lines["c0"]["response"]["body"]["metadata"] == {"run": "7"}
    assert "params.tools[0]" in lines["c2"]["error"]["message"]
