"""Estimates: what workers see of answers becomes what is held for the next ones, as promised."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from headgate.producer.admin import estimates
from headgate.producer.admin.estimates import EstimateReport
from headgate.shared.admission import estimates as learned
from headgate.shared.admission.estimates import ENOUGH, KEPT_MS, EstimateCounts, EstimateGroup
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers import bootstrap
from headgate.workers.bootstrap import open_parts
from headgate.workers.celery.pool import RETURN_S
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.maintenance.estimates import EstimateUpkeep
from tests.support.child import BUSY
from tests.support.command import headgate
from tests.support.servers import ValkeyServer

KEYS = Keys("t:")
MODEL = "claude-haiku-4-5"
CEILING = 16_384
ALL = EstimateGroup(MODEL, None)
ACME = EstimateGroup(MODEL, "acme")


@pytest.fixture
async def lane(valkey: ValkeyServer) -> AsyncIterator[RedisBatcher]:
    lane = RedisBatcher(Redis.from_url(valkey.url))
    yield lane
    await lane.close()


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def note(
    learning: EstimateUpkeep,
    output: int,
    *,
    tenant: str = "acme",
    template: str = "",
    times: int = 1,
    **facts: Any,
) -> None:
    known: dict[str, Any] = {
        "estimated_input": 100,
        "input_tokens": 100,
        "held_output": None,
        "ceiling": CEILING,
    }
    for _ in range(times):
        learning.saw(MODEL, tenant, template, output_tokens=output, **(known | facts))


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(15 * BUSY):
        while not true():  # noqa: ASYNC110  a condition of the server, which has no event for it
            await asyncio.sleep(0.002)


async def next_ms(client: redis.Redis) -> None:
    """Wait for the server's next ms: groups of the same ms have no order among them."""
    began: Any = client.time()
    await until(lambda: client.time()[1] // 1000 != began[1] // 1000)


def values(client: redis.Redis) -> dict[str, str]:
    found: Any = client.hgetall(KEYS.learned())
    return {str(name): str(value) for name, value in found.items()}


def standing(client: redis.Redis, group: EstimateGroup) -> EstimateReport:
    [found] = estimates.reports(client, KEYS, lambda other: other == group)
    return found


async def test_what_was_learned_stands_where_the_scripts_read_it(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 400, times=30, input_tokens=90)
    await learning.flush()
    found = values(client)
    assert int(found.pop(f"out|{MODEL}|acme|")) in range(400, 405)
    assert int(found.pop(f"out|{MODEL}|*|")) in range(400, 405)
    assert float(found.pop(f"in|{MODEL}")) == pytest.approx(0.9, rel=0.006)
    assert found == {}


async def test_of_few_answers_the_group_over_all_tenants_speaks(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    for tenant in ("a", "b"):
        note(learning, 300, tenant=tenant, times=ENOUGH - 1)
    await learning.flush()
    assert set(values(client)) == {f"out|{MODEL}|*|", f"in|{MODEL}"}
    note(learning, 300, tenant="a")
    await learning.flush()
    assert set(values(client)) == {f"out|{MODEL}|*|", f"out|{MODEL}|a|", f"in|{MODEL}"}


async def test_a_template_is_a_group_of_its_own_for_its_tenant_and_for_all(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 50, template="title", times=ENOUGH)
    note(learning, 900, template="essay", times=ENOUGH)
    await learning.flush()
    found = {name: int(value) for name, value in values(client).items() if name[:3] == "out"}
    for tenant in ("acme", "*"):
        assert found[f"out|{MODEL}|{tenant}|title"] == 50
        assert found[f"out|{MODEL}|{tenant}|essay"] in range(900, 910)
        assert found[f"out|{MODEL}|{tenant}|"] in range(900, 910)


async def test_names_of_tenants_may_hold_any_sign(lane: RedisBatcher, client: redis.Redis) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    for tenant in ("a|b", "*", "ünï\n"):
        note(learning, 10, tenant=tenant, times=ENOUGH)
    await learning.flush()
    assert {f"out|{MODEL}|a%7Cb|", f"out|{MODEL}|%2A|"} < set(values(client))
    tenants = {one.group.tenant for one in estimates.reports(client, KEYS)}
    assert tenants == {None, "a|b", "*", "ünï\n"}
    assert standing(client, ALL).answers == 3 * ENOUGH


@pytest.mark.parametrize("miss", [0.05, 0.2])
async def test_more_than_was_held_is_taken_as_often_as_promised(
    lane: RedisBatcher, client: redis.Redis, miss: float
) -> None:
    chance = random.Random(11)  # noqa: S311 (lengths of answers, no secret)
    workers = [EstimateUpkeep(lane, KEYS, miss=miss) for _ in range(3)]
    under = answers = 0
    for _ in range(60):
        held = values(client).get(f"out|{MODEL}|acme|")
        for worker in workers:
            for _ in range(25):
                output = int(chance.lognormvariate(5.5, 0.8)) + 1
                note(worker, output, held_output=int(held) if held else 256)
                answers += held is not None
                under += held is not None and output > int(held)
            await worker.flush()
    assert under / answers == pytest.approx(miss, rel=0.35)
    found = standing(client, ACME)
    assert found.answers == 60 * 75
    assert found.promised == miss
    assert found.seen == pytest.approx(under / answers, rel=0.3)


async def test_a_jump_in_length_is_followed(lane: RedisBatcher, client: redis.Redis) -> None:
    learning = EstimateUpkeep(lane, KEYS, half_life=100)
    for output in [100] * 10 + [800] * 10:
        note(learning, output, times=50)
        await learning.flush()
        if output == 100:
            assert values(client)[f"out|{MODEL}|acme|"] == "100"
    assert int(values(client)[f"out|{MODEL}|acme|"]) in range(800, 809)
    for _ in range(10):  # and back, when 95 of 100 are short again
        note(learning, 100, times=50)
        await learning.flush()
    assert values(client)[f"out|{MODEL}|acme|"] == "100"


async def test_where_the_vendor_holds_nothing_the_promise_is_judged_all_the_same(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 100, times=ENOUGH, held_output=0)
    assert list(estimates.reports(client, KEYS)) == []
    await learning.flush()
    assert standing(client, ACME).seen is None, "nothing was promised of the first"
    note(learning, 90, times=30, held_output=0)
    note(learning, 500, times=10, held_output=0)
    await learning.flush()
    assert standing(client, ACME).seen == pytest.approx(0.25, abs=0.01)


async def test_counts_that_are_sent_again_count_once(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    tally = EstimateCounts(answers=7)
    tally.output.add(5, 7)
    command = learned.add_counts(KEYS, name="w:1", new=[(ALL, tally)], miss=0.05)
    first, again = [script.run(client, command)[0] for _ in range(2)]
    assert isinstance(again, EstimateCounts)
    assert first == again
    assert again.answers == 7
    assert again.output.weight == pytest.approx(7)


async def test_a_group_with_few_new_answers_is_not_read_again_but_returns_its_estimate(
    client: redis.Redis,
) -> None:
    def told(number: int, answers: int) -> EstimateCounts | int | None:
        tally = EstimateCounts(answers=answers)
        tally.output.add(5, answers)
        [known] = script.run(
            client, learned.add_counts(KEYS, name=f"w:{number}", new=[(ALL, tally)], miss=0.05)
        )
        return known

    assert isinstance(told(1, 1000), EstimateCounts)
    assert told(2, 10) is None
    script.run(client, learned.store_estimates(KEYS, [learned.LearnedEstimate(ALL, 5)]))
    assert told(3, 10) == 5
    assert isinstance(told(4, 100), EstimateCounts), "counted from when it was read last"


@pytest.mark.parametrize(("miss", "known"), [(0.01, 99), (0.05, 20), (0.5, 20)])
async def test_a_tenant_speaks_for_itself_once_it_can_keep_the_promise(
    lane: RedisBatcher, client: redis.Redis, miss: float, known: int
) -> None:
    learning = EstimateUpkeep(lane, KEYS, miss=miss)
    note(learning, 10, tenant="a", times=known - 1)
    note(learning, 10, tenant="b", times=known)
    await learning.flush()
    assert set(values(client)) == {f"out|{MODEL}|*|", f"out|{MODEL}|b|", f"in|{MODEL}"}


async def test_the_counts_of_workers_add_up_in_any_order(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    workers = [EstimateUpkeep(lane, KEYS) for _ in range(4)]
    for number, worker in enumerate(workers):
        note(worker, 10 ** (number % 3 + 1), times=25)
    await asyncio.gather(*(worker.flush() for worker in workers))
    found = standing(client, ACME)
    assert found.answers == 100
    assert found.mean_output == pytest.approx((2 * 10 + 100 + 1000) / 4, rel=0.05)


BATCHES = st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=30), min_size=1, max_size=12)


@given(BATCHES, st.sampled_from([3.0, 100.0]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_counts_in_redis_are_those_of_one_who_saw_all_and_forgets_by_halves(
    client: redis.Redis, batches: list[list[int]], half_life: float
) -> None:
    client.flushall()
    model = EstimateCounts()
    for number, outputs in enumerate(batches):
        new = EstimateCounts(answers=len(outputs), judged=len(outputs), under=sum(outputs) % 3)
        for output in outputs:
            new.output.add(output)
            new.ratio.add(1 + output / 3000, output)
        factor = 0.5 ** (len(outputs) / half_life)
        model.output.fade(factor)
        model.ratio.fade(factor)
        model.judged, model.under = model.judged * factor, model.under * factor
        model.merge(new)
        command = learned.add_counts(
            KEYS, name=f"w:{number}", new=[(ALL, new)], miss=0.05, half_life=half_life
        )
        script.run(client, command)
        script.run(client, command)
    [found] = script.run(client, estimates.recall(KEYS, [ALL]))
    assert found is not None
    assert found.answers == model.answers
    # What weighs less than a thousandth of an answer is forgotten now and then.
    assert found.output.weight == pytest.approx(model.output.weight, rel=1e-6, abs=0.2)
    assert (found.judged, found.under) == pytest.approx((model.judged, model.under))
    for index, weight in model.output.weights.items():
        assert found.output.weights.get(index, 0) == pytest.approx(weight, rel=1e-6, abs=0.002)
    for index, weight in model.ratio.weights.items():
        assert found.ratio.weights.get(index, 0) == pytest.approx(weight, rel=1e-6, abs=0.002)


async def test_input_is_corrected_by_what_most_tokens_were_off(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 10, times=97, estimated_input=1000, input_tokens=800)
    note(learning, 10, times=2, estimated_input=1000, input_tokens=60_000)  # pictures
    await learning.flush()
    assert float(values(client)[f"in|{MODEL}"]) == pytest.approx(0.8, rel=0.01)
    found = standing(client, ACME)
    assert found.input_error_p50 == pytest.approx(0, abs=0.012)
    note(learning, 10, times=20, estimated_input=1000, input_tokens=1000)
    await learning.flush()
    found = standing(client, ACME)
    assert found.input_ratio is not None
    assert found.input_error_p50 == pytest.approx(found.input_ratio / 0.8 - 1, abs=0.012)


@pytest.mark.parametrize(("true", "ratio"), [(1, 0.25), (1_000_000, 4.0)])
async def test_a_correction_has_bounds(
    lane: RedisBatcher, client: redis.Redis, true: int, ratio: float
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 10, times=50, estimated_input=1000, input_tokens=true)
    await learning.flush()
    assert float(values(client)[f"in|{MODEL}"]) == ratio


async def test_what_a_vendor_cannot_have_meant_does_no_harm(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 10**18, times=30, ceiling=100)
    note(learning, -5, times=30, ceiling=100, input_tokens=-1)
    note(learning, 0, times=30, ceiling=0, estimated_input=0)
    await learning.flush()
    assert values(client)[f"out|{MODEL}|acme|"] == "100"
    assert standing(client, ACME).answers == 90


async def test_an_embedding_teaches_of_its_input_alone(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 0, times=ENOUGH, ceiling=0, input_tokens=120)
    await learning.flush()
    assert set(values(client)) == {f"in|{MODEL}"}
    assert standing(client, ACME).mean_output is None


async def test_groups_are_bounded_and_those_without_answers_go_first(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS, groups=5)
    for number in range(12):
        note(learning, 10, tenant=f"t{number}", times=ENOUGH)
        await learning.flush()
        await next_ms(client)
    kept = {f"{MODEL}|{tenant}|" for tenant in ("*", "t8", "t9", "t10", "t11")}
    assert set(client.zrange(KEYS.sketches(), 0, -1)) == kept
    assert set(values(client)) == {f"out|{name}" for name in kept} | {f"in|{MODEL}"}
    assert set(client.scan_iter(KEYS.sketch("*"))) == {KEYS.sketch(n) for n in kept}


async def test_a_value_of_a_group_that_has_gone_is_not_written(client: redis.Redis) -> None:
    lessons = [learned.LearnedEstimate(ACME, 7), learned.LearnedEstimate(ALL, 8, 1.5)]
    assert script.run(client, learned.store_estimates(KEYS, lessons)) == 0
    assert values(client) == {}


async def test_all_that_was_learned_has_a_lifetime(lane: RedisBatcher, client: redis.Redis) -> None:
    learning = EstimateUpkeep(lane, KEYS)
    note(learning, 10, times=ENOUGH)
    await learning.flush()
    names = set(client.scan_iter("t:*"))
    assert {KEYS.learned(), KEYS.sketches(), KEYS.sketch(ALL.encode())} < names
    assert all(0 < client.pttl(name) <= KEPT_MS for name in names)


async def test_numbers_stay_small_however_many_answers_there_were(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS, half_life=2)
    for number in range(200):
        note(learning, 5 if number % 2 else 700, times=100)
        await learning.flush()
    packed: Any = script.run(
        client, script.compose("estimates_read", [KEYS.sketch(ACME.encode())], (), list)
    )
    counts = json.loads(packed[0])
    assert counts["answers"] == 20_000
    assert all(weight < 1e12 for weight in counts["o"].values())
    assert values(client)[f"out|{MODEL}|acme|"] == "5"


async def test_a_worker_that_cannot_share_keeps_a_bounded_number_of_notes(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    learning = EstimateUpkeep(lane, KEYS, groups=50)
    for number in range(1000):
        note(learning, 10, tenant=f"t{number}")
    await learning.flush()
    await learning.flush()
    assert client.zcard(KEYS.sketches()) == 50
    assert sum(one.answers for one in estimates.reports(client, KEYS)) <= 50 + 50


async def test_notes_are_shared_for_as_long_as_the_worker_runs_whatever_redis_says(
    lane: RedisBatcher, client: redis.Redis
) -> None:
    client.set(KEYS.sketches(), "not what it should be")
    learning = EstimateUpkeep(lane, KEYS, every_s=0.01)
    keeping = asyncio.create_task(learning.keep())
    note(learning, 10)
    await until(lambda: client.exists(KEYS.sketch(ALL.encode())))  # then it meets the wrong key
    client.delete(KEYS.sketches())
    note(learning, 10)
    await until(lambda: client.exists(KEYS.sketches()))
    assert not keeping.done()
    keeping.cancel()


async def test_estimates_shows_what_was_promised_and_what_was_seen(
    lane: RedisBatcher, valkey: ValkeyServer
) -> None:
    learning = EstimateUpkeep(lane, Keys())
    note(learning, 100, times=40)
    await learning.flush()
    note(learning, 90, times=36, held_output=100)
    note(learning, 200, times=4, held_output=100)
    note(learning, 10, tenant="other", times=2)
    await learning.flush()
    env = {"HEADGATE_REDIS_URL": valkey.url}
    ended = await asyncio.to_thread(headgate, ["estimates", "--tenant", "acme", "--json"], env)
    assert ended.code == 0, ended.err
    found = ended.document
    assert (found["model"], found["tenant"], found["template"]) == (MODEL, "acme", "")
    assert (found["answers"], found["promised"]) == (80, 0.05)
    assert found["seen"] == pytest.approx(0.1, abs=0.01)
    assert found["held_output_tokens"] in range(200, 203)
    assert found["mean_output_tokens"] == pytest.approx(100.5, rel=0.02)
    table = await asyncio.to_thread(headgate, ["estimates", "--model", MODEL], env)
    assert table.code == 0
    head, *rows = table.out.splitlines()
    assert head.split("\t")[:2] == ["model", "tenant"]
    assert sorted(row.split("\t")[1] for row in rows) == ["(all)", "acme", "other"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--model", "no-such"], 2, "no-such"),
        (["--limit", "0"], 2, "--limit"),
        (["--tenant", "nobody"], 0, "no estimates"),
    ],
)
def test_estimates_names_what_is_wrong(
    valkey: ValkeyServer, words: list[str], code: int, said: str
) -> None:
    ended = headgate(["estimates", *words], {"HEADGATE_REDIS_URL": valkey.url})
    assert ended.code == code
    assert said in ended.err


def upgraded(url: str) -> None:
    engine = open_engine(url)
    migrate.upgrade(engine)
    engine.dispose()


async def test_a_worker_that_stops_shares_its_last_notes(
    valkey: ValkeyServer,
    client: redis.Redis,
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bootstrap, "FLUSH_WITHIN_S", 60)  # Redis is here, the machine may be busy
    in_force = Settings(
        home=tmp_path, redis_url=valkey.url, database_url=sqlite_url, key_prefix="t:"
    )
    upgraded(sqlite_url)
    parts = await open_parts(in_force, Servers(in_force, valkey.url, sqlite_url), "w")
    note(parts.pipeline.ask.steps.estimates, 100, times=ENOUGH)
    await parts.close()
    assert standing(client, ACME).answers == ENOUGH


async def test_a_worker_that_stops_waits_for_no_redis_that_is_away(
    valkey_factory: Callable[..., ValkeyServer], sqlite_url: str, tmp_path: Path
) -> None:
    server = valkey_factory()
    in_force = Settings(home=tmp_path, redis_url=server.url, database_url=sqlite_url)
    upgraded(sqlite_url)
    parts = await open_parts(in_force, Servers(in_force, server.url, sqlite_url), "w")
    note(parts.pipeline.ask.steps.estimates, 100)
    server.kill()
    async with asyncio.timeout(RETURN_S * BUSY):
        await parts.close()
