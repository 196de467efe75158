"""`model: auto`: a model that can do it, of a provider that the workers have a key of."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.shared.broker import worker_keys
from headgate.shared.catalog import catalog
from headgate.shared.job.ids import now_ms
from tests.support.command import headgate
from tests.support.governor import KEYS, Open, world

__all__ = ["world"]

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/gif;base64,R0lGODlhAQABAAAAACw="}}
SEEN = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}]
HARD = "Prove rigorously, in depth and step by step, that the halting problem is undecidable; then "
HARD += "derive two corollaries, compare three proofs, and justify each assumption that you make."


@pytest.mark.slow
def test_auto_chooses_a_model_that_can_do_it_and_says_why(world: Open) -> None:
    here = world()
    models = catalog.load()
    here.wait(lambda: here.redis.hlen(KEYS.keyed()) == len(models.providers), "the workers' keys")
    asked: list[dict[str, Any]] = [{"prompt": "Hello."}, {"prompt": HARD}, {"messages": SEEN}]
    jobs = [here.client.submit(model="auto", metadata={"n": 1}, **fields) for fields in asked]
    easy, hard, seen = (job.result(timeout_s=30) for job in jobs)
    assert (models.model(easy.model).quality or 0) < (models.model(hard.model).quality or 0)
    assert "vision" in models.model(seen.model).capabilities
    for result in (easy, hard, seen):
        assert result.model_used == result.model
        assert result.metadata == {"n": 1}
    told = here.client.route(HARD)
    assert told.model == hard.model
    assert any(hard.model in reason for reason in told.reasons)
    assert told.runners_up
    command = headgate(["route", HARD, "--json"], here.env)
    assert command.document["model"] == hard.model
    counts = dict.fromkeys(models.providers, 0) | {"anthropic": 1}
    here.workers[0].stop()
    here.wait(lambda: not here.redis.exists(KEYS.worker_keys()), "its keys to be forgotten")
    until_ms = now_ms() + 600_000
    here.redis.zadd(KEYS.worker_keys(), {worker_keys.member("other", counts): until_ms})
    here.wait(lambda: here.client.route(HARD).provider == "anthropic", "the keys to be seen")
    dear = headgate(["route", "Hello", "--max-usd-per-million", "0.0001"], here.env)
    assert dear.code == 2
    assert "max_usd_per_million" in dear.err
