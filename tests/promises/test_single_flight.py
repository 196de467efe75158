"""Equal requests at once: one call for all workers, and never one tenant's answer for another."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from headgate import RequestFields
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit
from tests.support.child import BUSY, wait_until
from tests.support.governor import KEYS, MODEL, Open, World, world

__all__ = ["world"]

SAME: RequestFields = {"prompt": "The same words for all.", "model": MODEL, "fallback": False}


def contents(here: World, ids: list[str]) -> set[str | None]:
    """What these jobs were answered."""
    return {here.client.result(one, wait=True, timeout_s=30 * BUSY).content for one in ids}


def told(here: World) -> dict[str | None, int]:
    """How many jobs were answered in which way."""
    query = select(audit.c.cached, func.count()).group_by(audit.c.cached)
    with reading(here.engine) as connection:
        return {row[0]: row[1] for row in connection.execute(query)}


@pytest.mark.slow
def test_a_thousand_equal_jobs_at_once_on_four_workers_are_one_call(world: Open) -> None:
    here = world("--latency-ms=4000", workers=4)  # all others come while the first is asked
    ids = here.client.submit_many([SAME] * 1000)
    ids += here.client.submit_many([SAME | {"tenant": "other"}] * 10)
    ids += here.client.submit_many([SAME | {"share": False}] * 2)
    here.until_ended(ids)
    assert len(contents(here, ids)) == 1
    ways = told(here)
    calls = here.accepted()
    assert calls == ways[None]
    # One for each tenant; those who would not share may find its answer, or ask themselves.
    assert 2 <= calls <= 4
    assert ways["shared"] >= 900
    with reading(here.engine) as connection:
        bill = connection.scalar(select(func.sum(attempts.c.cost_pico_usd)))
        assert connection.scalar(select(func.sum(audit.c.cost_pico_usd))) == bill
    assert not here.redis.exists(KEYS.flights(), KEYS.leaders(), KEYS.followers())


@pytest.mark.slow
def test_when_the_leader_is_killed_another_asks_and_all_get_its_answer(world: Open) -> None:
    here = world("--latency-ms=4000", workers=4, lease_s=5)
    here.warm()
    ids = here.client.submit_many([SAME] * 200)
    here.wait(lambda: here.redis.zcard(KEYS.followers()) == 199, "the others to follow")
    [leader] = here.redis.hkeys(KEYS.leaders())
    owner = here.redis.hget(KEYS.owners(), leader)
    name = str(owner).partition("#")[0]
    [worker] = [one for n, one in enumerate(here.workers) if f"w{n}@" in name]
    wait_until(lambda: here.simulator.stats()["requests"] > 0, 10, "the call")
    worker.kill()
    here.until_ended(ids)
    assert len(contents(here, ids)) == 1
    assert here.simulator.stats()["requests"] <= 2
