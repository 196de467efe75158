"""A worker of the release before, alone behind today's gateway, until a newer one comes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.promises.test_release_before import BEFORE
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.event_reader import EventReader
from tests.support.gateway import Answered, Gateway, ask
from tests.support.git_trees import tree_of
from tests.support.servers import Simulator, ValkeyServer

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


def asked(text: str, model: str, **fields: Any) -> dict[str, Any]:
    """A body that is good in both dialects."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "max_tokens": 100, "messages": messages, **fields}


@pytest.mark.slow
def test_an_older_worker_answers_what_it_knows_and_leaves_the_rest_to_a_newer_one(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "500")
    new = {
        "HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url, "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_SWEEP_S": "1",
    }  # fmt: skip
    old = new | {"PYTHONPATH": str(tree_of(BEFORE, tmp_path / "before"))}
    assert headgate(["db", "upgrade"], new).code == 0
    theirs = installation.worker_process(old, tmp_path, "before")
    ours = installation.worker_process(new, tmp_path, "new")
    gateway = Gateway(new, tmp_path)
    with installation.ended_afterwards(gateway, theirs, ours):
        theirs.start()
        gateway.start()
        for model in ("gpt-4o-mini", "claude-haiku-4-5"):
            plain = ask(gateway, CHAT, asked("Tell me of the sea", model))
            assert plain.status == 200, plain.body
            with EventReader(gateway, CHAT, asked("of the sky", model, stream=True)) as reader:
                events = list(reader)
            assert events[-1].is_end, events
            text = "".join(event.text for event in events)
            assert len([event for event in events if event.text]) > 1
            again = ask(gateway, CHAT, asked("of the sky", model))
            assert again.json["choices"][0]["message"]["content"] == text
        words = {"model": "text-embedding-3-small", "input": ["one", "two"]}
        assert ask(gateway, "/v1/embeddings", words).status == 200
        calls = simulator.stats()["requests"]
        answers: list[Answered] = []

        def call(path: str, body: dict[str, Any]) -> None:
            answers.append(ask(gateway, path, body, timeout_s=120))

        newer: list[tuple[str, dict[str, Any]]] = [
            (MESSAGES, asked("of the wind", "claude-haiku-4-5", stream=False)),
            (MESSAGES, asked("of the rain", "claude-haiku-4-5", stream=True)),
            (RESPONSES, {"model": "gpt-4o-mini", "input": "of the snow"}),
        ]
        waiting = [threading.Thread(target=call, args=one) for one in newer]
        for one in waiting:
            one.start()
        still = ask(gateway, CHAT, asked("meanwhile", "gpt-4o-mini"))
        assert still.status == 200
        waiting[0].join(8)
        assert answers == []
        assert simulator.stats()["requests"] == calls + 1
        ours.start()
        for one in waiting:
            one.join(60 * BUSY)
        assert [one.status for one in answers] == [200] * 3, [one.body[:300] for one in answers]
        wait_until(lambda: simulator.stats()["open_now"] == 0, 20, "all calls to end")
        assert simulator.stats()["requests"] == calls + 4
        for worker in (theirs, ours):
            assert worker.stop(30) == 0
            assert "Traceback" not in worker.log(), worker.log_from("Traceback")
