"""Who gets the next token: urgent jobs before a mountain of bulk, tenants by their weights, users
alike, and nobody starved.

Jobs stand in line before the pool is opened, so that the order says all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import pytest
from celery import Celery

from headgate.producer.admin.limits import pause, resume
from tests.bench.governor.order import jain
from tests.support.child import BUSY
from tests.support.governor import MODEL, OTHER, OTHER_POOL, POOL, Open, Start, World, limits, world

__all__ = ["world"]

RPM = 1500
AT_ONCE = 13
"""Calls that this rate lets through at once: among these the order of the ledger is chance."""


def shut(here: World) -> None:
    """The workers are warm, and nobody starts any more on the pool."""
    here.warm()
    pause(here.client.open(), f"pool/{POOL}")


def first_starts(here: World, number: int) -> list[Start]:
    """The pool is opened; so many jobs that started first, and all others granted by then.

    A worker that stands still starts a job after others that were granted later.
    """
    at = here.client.open()
    resume(at, f"pool/{POOL}")
    here.wait(lambda: len(on_pool(here)) >= number, f"{number} starts")
    pause(at, f"pool/{POOL}")
    here.wait(lambda: here.held() == 0, "all that were granted to end")
    return on_pool(here)


def on_pool(here: World) -> list[Start]:
    """All starts on the pool."""
    return [one for one in here.starts() if one.model == MODEL]


def tokens(starts: Sequence[Start]) -> Counter[str]:
    """What each tenant was served."""
    served: Counter[str] = Counter()
    for one in starts:
        served[one.tenant] += one.tokens
    return served


@pytest.mark.slow
def test_an_interactive_job_behind_thousands_of_bulk_jobs_gets_the_next_token(world: Open) -> None:
    here = world("--rpm=600", "--latency-ms=100", catalog=limits(rpm=600), workers=2)
    here.submit(3000, priority="bulk")
    here.until_accepted(6)
    urgent = []
    for _ in range(3):
        urgent += here.submit(1, priority="interactive", tenant="urgent")
        here.until_ended(urgent)
    waits = [one.at_ms - one.submitted_ms for one in here.starts() if one.tenant == "urgent"]
    assert len(waits) == 3
    assert max(waits) < 2000 * BUSY, waits
    here.wait(lambda: here.in_line() > 2000, "the others to stand in line")
    assert here.held() <= 100, "those behind wait in Redis, not in a worker"


def test_priorities_go_before_one_another_and_nobody_starves(world: Open) -> None:
    bounds = {"standard_wait_s": 2, "bulk_wait_s": 4}
    # One worker: of two, one that stands still would start its jobs out of their order.
    here = world(f"--rpm={RPM}", catalog=limits(rpm=RPM), workers=1, **bounds)
    shut(here)
    [old] = here.submit(1, priority="bulk")
    here.until_in_line(1)
    due_s = here.first_rank_ms("headgate.bulk.fast") / 1000
    here.wait(lambda: time.time() > due_s, "the bulk job to have waited its bound")
    names = ("bulk", "standard", "interactive")
    asked = [one for name in names for one in here.requests(40, priority=name)]
    ids = here.client.submit_many(asked)  # in one go, so that none has waited for the others
    late = {name: ids[40 * n : 40 * (n + 1)] for n, name in enumerate(names)}
    here.until_in_line(121)
    order = [one.job_id for one in first_starts(here, 60)][:60]
    assert order.index(old) < AT_ONCE, "it has waited for its bound: it ranks as urgent"
    places = {name: sorted(map(order.index, {*ids} & {*order})) for name, ids in late.items()}
    assert len(places["interactive"]) == 40
    assert len(places["standard"]) >= 19 - AT_ONCE
    assert places["interactive"][-1] < 41 + AT_ONCE, places["interactive"]
    assert not places["bulk"], places["bulk"]


@pytest.mark.long
def test_within_a_user_the_first_come_is_the_first_served(world: Open) -> None:
    here = world(f"--rpm={RPM}", catalog=limits(rpm=RPM))
    shut(here)
    ids = here.submit(300)
    here.until_in_line(300)
    starts = first_starts(here, 60)[:60]
    moved = max(abs(ids.index(one.job_id) - place) for place, one in enumerate(starts))
    assert moved <= AT_ONCE, moved


@pytest.mark.slow
def test_tenants_share_a_pool_by_their_weights(world: Open) -> None:
    weights = {"one": 1, "two": 2, "four": 4}
    told = "".join(f"[tenants.{name}]\nweight = {n}\n" for name, n in weights.items())
    here = world(f"--rpm={RPM}", catalog=limits(rpm=RPM) + told, workers=2)
    shut(here)
    for name in weights:
        here.submit(150, tenant=name)
    here.until_in_line(450)
    served = Counter(one.tenant for one in first_starts(here, 70))
    for name, weight in weights.items():
        assert abs(served[name] - served.total() * weight / 7) <= 2, served


@pytest.mark.slow
def test_ten_tenants_with_unlike_backlogs_are_served_alike(world: Open) -> None:
    here = world(f"--rpm={RPM}", catalog=limits(rpm=RPM), workers=2)
    backlogs = {f"t{n}": 40 + 3 * n * n for n in range(10)}
    shut(here)
    for tenant, number in reversed(backlogs.items()):
        here.submit(number, tenant=tenant)
    here.until_in_line(sum(backlogs.values()))
    starts = first_starts(here, 90)
    served = tokens(starts)
    assert jain([served[tenant] for tenant in backlogs]) >= 0.99, served


@pytest.mark.long
def test_tenants_share_tokens_not_calls_and_users_of_one_share_alike(world: Open) -> None:
    here = world("--rpm", f"{RPM}", catalog=limits(tpm=120_000), workers=2)
    shut(here)
    large = {"params": {"max_tokens": 300}}
    for user, number in (("u1", 90), ("u2", 60)):
        here.submit(number, tenant="small", user=user, params={"max_tokens": 100})
    here.submit(40, tenant="large", **large)
    here.until_in_line(190)
    starts = first_starts(here, 40)
    calls = Counter(one.tenant for one in starts)
    assert 2.2 <= calls["small"] / calls["large"] <= 3.8, calls
    users = Counter(here.users([one.job_id for one in starts if one.tenant == "small"]).values())
    assert abs(users["u1"] - users["u2"]) <= 4, users


def test_a_throttled_model_never_delays_another_that_shares_its_queue_and_worker(
    world: Open,
) -> None:
    # One call a minute, so that the first is refused before a second may start.
    here = world(catalog=limits(rpm=1), workers=1, concurrency=4)
    here.fails("429:retry-after=3600", match="throttled")
    slow = here.submit(300, prompt="throttled")
    here.wait(lambda: here.simulator.stats()["faults"], "the first refusal")
    overlay = '[models."gpt-4o"]\nclass = "fast"\n'
    (here.folder / "catalog.toml").write_text(limits(rpm=1) + overlay)
    here.command("catalog", "reload")
    free = here.submit(100, model=OTHER)
    here.until_ended(free)
    here.wait(lambda: here.held() == 0, "the last acknowledgement")
    assert here.in_line(POOL) == 300, "also the one that was refused waits at the gate"
    assert here.in_line(OTHER_POOL) == 0
    assert here.statuses(slow) == {"queued": 299, "deferred": 1}
    assert here.redis.keys("headgate.standard.smart") == []


def test_a_stock_celery_message_waits_in_line_like_others(world: Open) -> None:
    here = world("--rpm=300", catalog=limits(rpm=300), workers=1)
    shut(here)
    before = here.submit(5)
    here.until_in_line(5)
    app = Celery("stranger", broker=here.valkey.url, backend=here.valkey.url, set_as_current=False)
    [request] = here.requests(1)
    sent = app.send_task("headgate.run", args=[request], queue="headgate.standard.fast")
    here.until_in_line(6)
    assert here.held() == 0
    after = here.submit(5)
    here.until_in_line(11)
    order = [one.job_id for one in first_starts(here, 11)]
    app.close()
    assert set(order[:3]) <= set(before)
    assert 3 <= order.index(sent.id) <= 8
    assert set(order[-3:]) <= set(after)
    here.until_ended(order)
    assert here.statuses(order) == {"succeeded": 11}
