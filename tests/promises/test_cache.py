"""Equal requests over time: one is paid for, and what is kept can be spoilt without harm."""

from __future__ import annotations

from typing import Unpack

import pytest
from sqlalchemy import func, select

from headgate import RequestFields
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit
from headgate.shared.job.result import Result
from tests.support.governor import KEYS, MODEL, Open, World, world

__all__ = ["world"]

ASKED: RequestFields = {
    "prompt": "Which words are the same for all?",
    "model": MODEL,
    "fallback": False,
}


def answered(here: World, **fields: Unpack[RequestFields]) -> Result:
    """How a job with these words ended; by now its answer is kept, which follows the record."""
    [job_id] = here.client.submit_many([ASKED | fields])
    result = here.client.result(job_id, wait=True, timeout_s=30)
    here.wait(lambda: here.held() == 0, "the acknowledgement")
    return result


@pytest.mark.slow
def test_an_equal_request_is_answered_from_the_cache_and_a_poisoned_entry_is_a_miss(
    world: Open,
) -> None:
    here = world()
    first = answered(here)
    again = answered(here, user="another", params={"temperature": None, "metadata": {"a": "b"}})
    assert (first.cached, again.cached, again.content) == (None, "exact", first.content)
    assert (again.cost_usd, again.attempts) == ("0", 0)
    assert answered(here, tenant="another").cached is None
    assert answered(here, params={"temperature": 1}).cached is None  # meant to vary
    assert answered(here, params={"temperature": 1}).cached is None
    assert here.accepted() == 4
    with reading(here.engine) as connection:
        saved = select(audit.c.saved_pico_usd).where(audit.c.job_id == again.id)
        paid = select(func.sum(attempts.c.cost_pico_usd)).where(attempts.c.job_id == first.id)
        assert connection.scalar(saved) == connection.scalar(paid)

    def told() -> dict[str, object]:
        found: dict[str, object] = here.command("cache", "stats", "--json").document
        return {name: found[name] for name in ("entries", "hits", "tenants")}

    here.wait(lambda: here.redis.hget(KEYS.cache_counts(), "hits") == "1", "the hit to be told")
    assert (told()["entries"], told()["hits"]) == (2, 1)

    for poison in ("not JSON", '{"reply": {"content": 5}}', "z cut off"):
        for name in here.redis.hkeys(KEYS.cached()):
            here.redis.set(KEYS.cache(str(name)), f"{poison} secret")
        assert answered(here).cached is None
        assert answered(here).cached == "exact"
    assert here.accepted() == 7
    assert all("secret" not in worker.log() for worker in here.workers)

    assert "answers deleted" in here.command("cache", "clear", "--yes").out
    assert here.redis.hlen(KEYS.cached()) == 0
    assert answered(here).cached is None
