"""A model that is down: jobs go elsewhere or wait, one probe tries it, and nobody stampedes."""

import time
from collections import Counter

import pytest
from sqlalchemy import select

from headgate.shared.admission import breakers
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts
from tests.support.governor import KEYS, MODEL, OTHER, Open, World, world

__all__ = ["world"]

pytestmark = pytest.mark.slow


def models_asked(here: World, ids: list[str]) -> Counter[str]:
    """How often each model was asked for these jobs."""
    query = select(attempts.c.model).where(attempts.c.job_id.in_(ids))
    with reading(here.engine) as connection:
        return Counter(connection.scalars(query))


def test_while_a_model_is_down_jobs_go_elsewhere_or_wait_and_nobody_stampedes(
    world: Open,
) -> None:
    here = world(
        "--latency-ms=20", workers=2, breaker_open_s=1, concurrency=8,
        max_attempts=3, backoff_s=0.05, backoff_max_s=0.1,
    )  # fmt: skip
    here.warm()
    here.fails("503", match="lonely")
    waiting = here.submit(100, model=OTHER, prompt="lonely number")
    down = {f"openai/{OTHER}"}
    here.wait(lambda: breakers.down_models(here.redis, KEYS) == down, "the breaker to open")
    down_s = time.monotonic()
    elsewhere = here.submit(20, model=OTHER, fallback=[MODEL])
    here.until_ended(elsewhere)
    told = [here.client.result(one) for one in elsewhere]
    assert {one.status for one in told} == {"succeeded"}
    others = [one for one in told if one.fallback]
    assert len(others) >= 18, "but for one that was the probe"
    assert {one.attempts for one in others} <= {1, 2}
    faults = here.simulator.stats()["faults"]
    here.wait(lambda: here.simulator.stats()["faults"] != faults, "a probe")
    assert here.ended(waiting) < len(waiting)
    here.works()
    probes = time.monotonic() - down_s
    here.until_ended(waiting)
    assert here.statuses(waiting) == {"succeeded": 100}, "although most were out of tries long ago"
    calls = models_asked(here, waiting)
    in_flight = 36
    assert calls[OTHER] <= 100 + in_flight + probes + 1, "one probe a second since it broke"
    assert calls.keys() == {OTHER}
    opened = [log.count("is down") for log in (worker.log() for worker in here.workers)]
    assert 1 <= sum(opened) <= 2, "said once, by the worker that saw it"


def test_a_slow_request_is_asked_at_most_as_often_as_a_job_may_ask_and_condemns_no_model(
    world: Open,
) -> None:
    here = world(
        "--latency-ms=20", timeout_s=1, breaker_failures=3, breaker_open_s=0.2, max_attempts=3,
        max_attempts_per_job=4, backoff_s=0.05, backoff_max_s=0.1,
    )  # fmt: skip
    here.warm()
    here.fails("slow:ms=10000", match="slow")
    alone = here.submit(1, prompt="slow number")
    here.until_ended(alone)
    assert models_asked(here, alone)[MODEL] == 3, "the tries at one model, and no probe"
    assert breakers.down_models(here.redis, KEYS) == set(), "only this request is slow"
    others = here.submit(5)
    here.until_ended(others)
    assert here.statuses(others) == {"succeeded": 5}

    several = here.submit(3, prompt="slow number")
    here.until_ended(several, within_s=90)
    assert here.statuses([*alone, *several]) == {"failed": 4}
    assert models_asked(here, several)[MODEL] <= 3 * 4, "probes are tries: no job asks without end"
    errors = [here.client.result(one).error for one in several]
    assert [error and error.code for error in errors] == ["timeout"] * 3
