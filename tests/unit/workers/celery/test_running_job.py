"""What Celery's commands and events see of the jobs that run here, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery.worker import state

from headgate.workers.celery import task_state
from headgate.workers.celery.run_end import DEFERRED, TAKEN, RunEnd
from headgate.workers.celery.running_job import RunningJob, bears
from headgate.workers.celery.task_events import TaskEvents
from headgate.workers.delivery.message import Arrival, read
from tests.support.rig import STANDARD, stock_message

SECRET = "the words of the caller"  # noqa: S105  # no password: what must not be seen


def running(job_id: str = "one", crashes: int = 0, **headers: Any) -> RunningJob:
    """A job of a stock producer with further headers."""
    message = stock_message(job_id, [[{"prompt": SECRET, "model": "m", "tenant": "t"}], {}, {}])
    message["headers"] |= headers
    content = read(json.dumps(message).encode())
    return RunningJob(Arrival(7, job_id, STANDARD, crashes, content), "me@here")


@pytest.fixture
def celery_state() -> Iterator[None]:
    """Celery's state of this process, which is empty again afterwards."""
    state.reset_state()
    yield
    state.reset_state()


def test_inspect_shows_a_job_without_its_words() -> None:
    shown = running(crashes=1).info()
    assert (shown["id"], shown["worker_pid"], shown["hostname"]) == ("one", 7, "me@here")
    assert shown["kwargs"] == "{'model': 'm', 'tenant': 't'}"
    assert shown["delivery_info"]["redelivered"] is True
    assert SECRET not in json.dumps(shown)


def test_a_job_is_revoked_by_its_id_or_by_one_of_its_stamps(celery_state: None) -> None:
    stamped = running("two", stamped_headers=["who"], stamps={"who": ["ada", "eve"]})
    assert not stamped.is_revoked
    state.revoked_stamps["who"] = {"eve"}
    assert stamped.is_revoked
    assert not running("one").is_revoked
    state.revoked.add("one")
    assert running("one").is_revoked


def test_a_stamp_is_one_of_a_list_or_the_only_one() -> None:
    assert bears({"who": "ada"}, {"who": ["eve", "ada"]})
    assert not bears({"who": "ada"}, {"what": "ada"})
    assert not bears({}, {"who": "ada"})


def test_celery_counts_the_jobs_that_run_when_it_asks(celery_state: None) -> None:
    first, second = running("one"), running("two")
    task_state.show([first, second], begun=2)
    assert set(state.active_requests) == {first, second}
    task_state.show([second], begun=5)
    assert set(state.active_requests) == {second}
    assert (state.all_total_count, state.total_count["headgate.run"]) == ([5], 5)


class Dispatcher:
    """What Celery's dispatcher is to the events."""

    def __init__(self, groups: set[str], *, fails: bool = False) -> None:
        self.enabled, self.groups, self.fails = True, groups, fails
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, **fields: Any) -> None:
        if self.fails:
            raise OSError(SECRET)
        self.sent.append((event, fields))


async def told(*ends: RunEnd) -> list[tuple[str, dict[str, Any]]]:
    """The events of one job, which is begun once and ended in each of these ways."""
    woken = asyncio.Event()
    events, dispatcher = TaskEvents(asyncio.get_running_loop(), woken.set), Dispatcher({"task"})
    job = running(expires="2030-01-01T00:00:00+00:00", root_id="root")
    events.began(job)
    for end in ends:
        events.ended(job, end)
    await asyncio.wait_for(woken.wait(), 60)
    events.send(dispatcher)
    return dispatcher.sent


async def test_a_job_is_received_and_started_before_it_ends() -> None:
    sent = await told(RunEnd("succeeded", "task-succeeded"))
    assert [event for event, _ in sent] == ["task-received", "task-started", "task-succeeded"]
    received = sent[0][1]
    assert received["expires"] == "2030-01-01T00:00:00+00:00"
    assert (received["root_id"], received["retries"]) == ("root", 0)
    assert {fields["uuid"] for _, fields in sent} == {"one"}
    assert SECRET not in str(sent)


async def test_a_job_that_another_worker_has_tells_no_end() -> None:
    assert [event for event, _ in await told(TAKEN, DEFERRED)][2:] == ["task-retried"]


@pytest.mark.parametrize(
    ("groups", "enabled", "wanted"),
    [(set(), True, True), ({"worker", "task"}, True, True), ({"worker"}, True, False),
     ({"task"}, False, False)],
)  # fmt: skip
async def test_events_are_wanted_once_somebody_asks_for_those_of_tasks(
    groups: set[str], enabled: bool, wanted: bool
) -> None:
    events, dispatcher = TaskEvents(asyncio.get_running_loop(), lambda: None), Dispatcher(groups)
    dispatcher.enabled = enabled
    assert events.wanted is False
    events.refused("nobody hears of it")
    events.send(dispatcher)
    assert events.wanted is wanted
    assert dispatcher.sent == []
    events.refused("bad")
    events.send(dispatcher)
    assert [event for event, _ in dispatcher.sent] == ["task-failed"] * wanted


async def test_an_event_that_cannot_be_sent_is_logged_and_the_next_one_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = TaskEvents(asyncio.get_running_loop(), lambda: None)
    events.send(Dispatcher(set()))
    events.refused("one")
    events.send(Dispatcher(set(), fails=True))
    assert "Celery failed while it sent an event" in caplog.text
    events.refused("two")
    last = Dispatcher(set())
    events.send(last)
    assert [fields["uuid"] for _, fields in last.sent] == ["two"]
