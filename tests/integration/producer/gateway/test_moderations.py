"""Moderations at the gateway and by the library: through a provider, and by an own function."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from headgate import Client
from headgate.shared.errors import InvalidRequest
from headgate.shared.settings import Settings
from tests import ROOT
from tests.support.command import headgate
from tests.support.gateway import Gateway, House, ask, house
from tests.support.installation import ended_afterwards, worker_process
from tests.support.servers import Simulator, ValkeyServer

MODERATIONS = "/v1/moderations"
BAD = [
    ({}, "input"), ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": [1]}, "input"),
    ({"input": ["x", {"type": "text"}]}, "input"), ({"input": [{"text": "x"}]}, "input[0].type"),
    ({"input": "x", "model": "gpt-4o-mini"}, "model"),
    ({"input": "x", "model": "nope"}, "model"),
]  # fmt: skip


def client_of(at: House) -> Client:
    env = at.env
    return Client(Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=env["HEADGATE_DATABASE_URL"],
        home=Path(env["HEADGATE_HOME"]),
    ))  # fmt: skip


def test_moderations_are_jobs_through_a_provider(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory()
    with house(valkey, sqlite_url, simulator, tmp_path) as at:
        _by_openais_library(at)
        _by_our_library(at)
        for body, field in BAD:
            refused = ask(at.gateway, MODERATIONS, body)
            assert refused.status in (400, 404), (body, refused.body)
            assert refused.json["error"]["param"] == field, (body, refused.body)
        refused = ask(at.gateway, "/v1/chat/completions", {
            "model": "omni-moderation-latest", "messages": [{"role": "user", "content": "x"}],
        })  # fmt: skip
        assert refused.status == 400
        assert "moderation" in refused.json["error"]["message"]
    assert simulator.stats()["requests"] == 4


def _by_openais_library(at: House) -> None:
    client = openai.OpenAI(base_url=f"{at.gateway.url}/v1", api_key="none")
    plain = client.moderations.create(input="[[flag:violence]] now")
    assert plain.model == "omni-moderation-latest"
    assert plain.results[0].flagged
    assert plain.results[0].categories.violence
    assert not plain.results[0].categories.hate
    several = client.moderations.create(
        input=["fine", "[[flag:hate]]"], model="omni-moderation-2024-09-26"
    )
    assert [one.flagged for one in several.results] == [False, True]
    image: Any = {"type": "image_url", "image_url": {"url": "https://x.test/[[flag:sexual]].png"}}
    parts = client.moderations.create(input=[{"type": "text", "text": "look"}, image])
    assert [one.categories.sexual for one in parts.results] == [True]


def _by_our_library(at: House) -> None:
    with client_of(at) as client:
        job = client.submit(dialect="moderations", input=["a [[flag:illicit]]"], user="u1")
        result = job.result(timeout_s=60)
        assert (result.content, result.cost_usd) == (None, "0")
        assert result.message is not None
        assert result.message["results"][0]["categories"]["illicit"]
        assert result.usage.input_tokens > 0
        again = client.submit(dialect="moderations", input=["a [[flag:illicit]]"], user="u2")
        cached = again.result(timeout_s=60)
        assert (cached.cached, cached.message) == ("exact", result.message)
        for fields in ({"prompt": "x"}, {"input": "x", "stream": True}, {"input": [[1]]}):
            with pytest.raises(InvalidRequest):
                client.submit(dialect="moderations", **fields)


OWN = """
def judge(inputs):
    return [{"categories": {"own/rule": "forbidden" in one}} for one in inputs]
"""


def test_an_own_function_judges_without_any_key_of_a_provider(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    (tmp_path / "own_moderation.py").write_text(OWN)
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url, "HEADGATE_MODERATION": "own_moderation:judge",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
    }  # fmt: skip
    assert headgate(["db", "upgrade"], env).code == 0
    gateway, worker = Gateway(env, tmp_path), worker_process(env, tmp_path)
    with ended_afterwards(gateway, worker):
        worker.start()
        gateway.start()
        answered = ask(gateway, MODERATIONS, {"input": ["fine", "a forbidden word"]})
    assert answered.status == 200, answered.body
    assert [one["flagged"] for one in answered.json["results"]] == [False, True]
    assert answered.json["results"][1]["categories"]["own/rule"]
    assert answered.headers["x-headgate-cost-usd"] == "0"
