"""One call at the door: which job it gets, and what becomes of the job when callers go away."""

from __future__ import annotations

import asyncio

import pytest

from headgate.producer.errors import SubmitInterrupted, UnknownJob
from headgate.producer.gateway.calls import departures
from headgate.shared.errors import Unreachable
from tests.unit.producer.gateway.doors import (
    WAIT_S,
    Caller,
    PlayedOperations,
    departed,
    good,
    make_door,
    turns,
)


async def test_a_retry_that_comes_while_its_call_is_being_submitted_gets_the_same_job() -> None:
    played = PlayedOperations()
    door = make_door(played)
    played.may_submit.clear()
    first = Caller(door, x_stainless_retry_count="0")
    assert await asyncio.to_thread(played.submits.wait, WAIT_S)
    retry = Caller(door, x_stainless_retry_count="1")
    await turns()
    played.may_submit.set()
    await played.waiters_made.until_waiting(2)
    await played.waiters_made.end("0193-1", good("0193-1"))
    for one in (first, retry):
        assert (await one.answer).headers["x-headgate-job-id"] == "0193-1"
    assert len(played.submitted) == 1
    await door.close()


async def test_a_call_that_leaves_does_not_cancel_the_job_for_which_an_equal_one_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departures, "GRACE_S", 0.01)
    played = PlayedOperations()
    door = make_door(played)
    first = Caller(door, idempotency_key="k")
    await played.waiters_made.until_waiting(1)
    second = Caller(door, idempotency_key="k")
    await played.waiters_made.until_waiting(2)
    second.leave()
    assert (await second.answer).status_code == 499
    await departed(door)
    assert played.cancelled == []
    first.leave()
    assert (await first.answer).status_code == 499
    await departed(door)
    assert played.cancelled == ["0193-1"]
    await door.close()


async def test_a_call_that_leaves_cancels_its_job_though_an_equal_call_has_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departures, "GRACE_S", 0.01)
    played = PlayedOperations()
    door = make_door(played)
    first = Caller(door, x_stainless_retry_count="0")
    await played.waiters_made.until_waiting(1)
    Caller(door, x_stainless_retry_count="0")
    await played.waiters_made.until_waiting(2)
    first.leave()
    assert (await first.answer).status_code == 499
    await departed(door)
    assert played.cancelled == ["0193-1"]
    await played.waiters_made.end("0193-2", good("0193-2"))
    await door.close()


async def test_a_wait_goes_on_if_the_servers_are_away_when_it_looks_for_a_worker() -> None:
    played = PlayedOperations()
    door = make_door(played)
    played.waiters_made.faults.append(Unreachable("the database", "away", "wait"))
    call = Caller(door)
    await played.waiters_made.until_waiting(1)
    await played.waiters_made.end("0193-1", good("0193-1"))
    assert (await call.answer).status_code == 200
    await door.close()


async def test_all_calls_share_one_attempt_to_open_the_servers() -> None:
    played = PlayedOperations()
    played.open_fault = Unreachable("Redis at redis://10.0.0.7:6379", "no answer", "start it")
    played.may_open.clear()
    door = make_door(played)
    calls = [Caller(door) for _ in range(5)]
    await turns()
    played.may_open.set()
    answers = [await one.answer for one in calls]
    assert [one.status_code for one in answers] == [503] * 5
    assert played.opened < 5 * 2  # one of each call would be ten: one to submit, one for limits
    assert b"10.0.0.7" not in bytes(answers[0].body)
    await door.close()


async def test_limits_that_cannot_be_read_cost_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    played = PlayedOperations()
    played.redis.time = lambda: 1 / 0  # type: ignore[method-assign,assignment]
    door = make_door(played)
    call = Caller(door)
    await played.waiters_made.until_waiting(1)
    await played.waiters_made.end("0193-1", good("0193-1"))
    assert (await call.answer).status_code == 200
    assert "ZeroDivisionError" in caplog.text
    await door.close()


async def test_a_retry_takes_up_a_job_whose_commit_was_not_confirmed() -> None:
    played = PlayedOperations()
    door = make_door(played)
    server = "the database at postgresql://10.0.0.7/h"
    played.outcomes.append(SubmitInterrupted(server, "gone", [], ["0193-7"]))
    refused = await Caller(door, x_stainless_retry_count="0").answer
    assert (refused.status_code, b"10.0.0.7" in bytes(refused.body)) == (503, False)
    await played.waiters_made.end("0193-7", good("0193-7"))
    answer = await Caller(door, x_stainless_retry_count="1").answer
    assert answer.headers["x-headgate-job-id"] == "0193-7"
    assert len(played.submitted) == 1
    await door.close()


async def test_a_retry_of_a_job_that_is_not_on_record_is_a_new_job() -> None:
    played = PlayedOperations()
    door = make_door(played)
    await played.waiters_made.end("0193-1", UnknownJob("0193-1"))
    assert (await Caller(door, x_stainless_retry_count="0").answer).status_code == 404
    await played.waiters_made.end("0193-2", good("0193-2"))
    assert (await Caller(door, x_stainless_retry_count="1").answer).status_code == 200
    await door.close()


async def test_a_call_that_comes_while_its_job_is_being_cancelled_is_a_new_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departures, "GRACE_S", 0.01)
    played = PlayedOperations()
    door = make_door(played)
    first = Caller(door, idempotency_key="k")
    await played.waiters_made.until_waiting(1)
    first.leave()
    assert (await first.answer).status_code == 499
    await departed(door)
    await played.waiters_made.end("0193-2", good("0193-2"))
    answer = await Caller(door, idempotency_key="k").answer
    assert (answer.status_code, answer.headers["x-headgate-job-id"]) == (200, "0193-2")
    assert played.submitted[1]["idempotency_key"] == "k~0193-1"
    await door.close()


async def test_a_job_that_ended_before_it_was_cancelled_is_taken_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(departures, "GRACE_S", 0.01)
    played = PlayedOperations()
    door = make_door(played)
    first = Caller(door, x_stainless_retry_count="0")
    await played.waiters_made.until_waiting(1)
    first.leave()
    assert (await first.answer).status_code == 499
    await departed(door)
    await played.waiters_made.end("0193-1", good("0193-1"))
    answer = await Caller(door, x_stainless_retry_count="1").answer
    assert answer.headers["x-headgate-job-id"] == "0193-1"
    assert len(played.submitted) == 1
    await door.close()


async def test_jobs_that_are_not_stored_are_shed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "GRACE_S", 0.0)
    monkeypatch.setattr(departures, "SHED_EVERY_S", 0.01)
    monkeypatch.setattr(departures, "SHED_AT_ONCE", 2)
    played = PlayedOperations()
    door = make_door(played)
    for job_id in ("a", "b", "c"):
        door.departures.shed(job_id)
    await departed(door)
    assert played.shed_together == [["a", "b"], ["c"]]
    door.departures.shed("d")
    await departed(door)
    assert played.shed_together[2:] == [["d"]]
    await door.close()
