"""Equal requests are one call unless each is asked for; samples are never paid for twice."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from headgate import AsyncClient, RequestFields
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts
from headgate.shared.settings import Settings
from tests.support.governor import MODEL, Open, World, world

__all__ = ["world"]
pytestmark = pytest.mark.slow


def run(here: World, source: Path, out: str, *words: str) -> tuple[dict[str, Any], str, int]:
    """The summary of a batch as JSON, as text, and how many calls it made."""
    before = here.accepted()
    path = source.with_name(out)
    ended = here.command("batch", "run", str(source), "-o", str(path), "--model", MODEL, *words)
    assert ended.code == 0, ended.err
    again = here.command("batch", "run", str(source), "-o", str(path), "--resume", "--json")
    return again.document, ended.out, here.accepted() - before


def ledger_usd(here: World) -> Decimal:
    """What the ledger says was paid."""
    with reading(here.engine) as connection:
        pico = connection.scalar(select(func.sum(attempts.c.cost_pico_usd)))
    return Decimal(int(pico or 0)).scaleb(-12)


def test_equal_lines_are_one_call_and_samples_are_calls_of_their_own(
    world: Open, tmp_path: Path
) -> None:
    here = world()
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "Name a river."}\n' * 10)

    summary, words, calls = run(here, source, "equal.jsonl")
    assert (calls, summary["cached"] + summary["shared"]) == (1, 9)
    assert "9 lines got the answer of an equal one; --no-cache asks each" in words

    summary, words, calls = run(here, source, "each.jsonl", "--no-cache")
    assert (calls, summary["cached"] + summary["shared"]) == (10, 0)
    assert "--no-cache" not in words

    # The first sample is the request that was paid for; the two others are new, once for all lines.
    summary, words, calls = run(here, source, "samples.jsonl", "--samples", "3")
    assert (calls, summary["lines"], summary["succeeded"]) == (2, 30, 30)
    lines = [json.loads(one) for one in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert {one["custom_id"] for one in lines} == {
        f"line-{n}#{k}" for n in range(1, 11) for k in (1, 2, 3)
    }
    _, _, calls = run(here, source, "more.jsonl", "--samples", "4")
    assert calls == 1

    fields: RequestFields = {"prompt": "Name a lake.", "model": MODEL}
    ids = here.client.submit_many([fields] * 2, samples=3)
    assert {here.client.result(one, timeout_s=60).status for one in ids} == {"succeeded"}
    assert here.accepted() == 1 + 10 + 2 + 1 + 3

    async def again() -> list[str | None]:
        servers = here.client.open().settings
        async with AsyncClient(Settings(**servers.model_dump())) as client:
            found = await client.submit_many([fields], samples=3)
            return [(await client.result(one, timeout_s=60)).cached for one in found]

    assert asyncio.run(again()) == ["exact"] * 3
    assert ledger_usd(here) == Decimal(here.simulator.stats()["money"]["billed_usd"])


def test_several_answers_of_one_call_are_billed_and_shared_as_one_job(world: Open) -> None:
    here = world()
    fields: RequestFields = {
        "prompt": "Name a river.", "model": MODEL, "params": {"n": 3, "max_tokens": 20},
    }  # fmt: skip
    ids = here.client.submit_many([fields] * 3)
    results = [here.client.result(one, timeout_s=60) for one in ids]
    assert here.accepted() == 1
    assert sum(one.cached is None for one in results) == 1
    one = here.client.submit("Name a river.", model=MODEL, params={"max_tokens": 20})
    single = one.result(timeout_s=60)
    [paid] = [result for result in results if result.cached is None]
    assert single.usage.output_tokens < paid.usage.output_tokens <= 60
    for result in results:
        assert result.message is not None
        assert [choice["index"] for choice in result.message["choices"]] == [0, 1, 2]
    assert ledger_usd(here) == Decimal(here.simulator.stats()["money"]["billed_usd"])
