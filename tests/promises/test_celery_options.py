"""What Celery promises of a task holds for `headgate.run`: priority, expires, countdown, failures.

One worker serves all tests of this file.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from headgate import JobFailed
from headgate.shared.broker.queues import lists_of
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.rig import stock_message
from tests.support.stock import QUEUE, Stock, opened, state_of

WITHIN_S = 20 * BUSY


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    with opened(tmp_path_factory.mktemp("stock"), HEADGATE_SWEEP_S="1") as found:
        yield found


@pytest.fixture
def paused(stock: Stock) -> Iterator[None]:
    """No worker takes jobs of the queue until the test resumes it."""
    stock.client.sadd(stock.keys.paused(), f"queue/{QUEUE}")
    yield
    resume(stock)


def resume(stock: Stock) -> None:
    stock.client.srem(stock.keys.paused(), f"queue/{QUEUE}")


def failure(answer: AsyncResult[Any]) -> JobFailed:
    with pytest.raises(JobFailed) as raised:
        answer.get(timeout=WITHIN_S)
    assert answer.state == "FAILURE"
    return raised.value


def is_revoked(answer: AsyncResult[Any]) -> bool:
    with pytest.raises(TaskRevokedError):
        answer.get(timeout=WITHIN_S)
    return state_of(answer) == "REVOKED"


def record_of(stock: Stock, answer: AsyncResult[Any]) -> dict[str, Any]:
    found = headgate(["result", answer.id, "--json"], stock.env)
    record: dict[str, Any] = json.loads(found.out)
    return record


def test_a_message_of_every_priority_is_read_and_counted_before_with_its_queue(
    stock: Stock, paused: None
) -> None:
    sent = [stock.send(f"priority {n}", priority=n) for n in range(10)]
    assert [stock.client.llen(key) for key in lists_of(stock.keys, QUEUE)] == [3, 3, 3, 1]
    limits = json.loads(headgate(["limits", "--json"], stock.env).out)
    assert limits["unsorted"] == {QUEUE: 10}
    resume(stock)
    for answer in sent:
        assert answer.get(timeout=WITHIN_S)["status"] == "succeeded"
    assert not stock.client.exists(*lists_of(stock.keys, QUEUE))


def test_an_app_with_a_default_priority_is_served(stock: Stock) -> None:
    with Celery("own", broker=stock.valkey.url, backend=stock.valkey.url) as app:
        app.conf.update(task_default_priority=9, task_default_queue=QUEUE)
        answer = app.send_task("headgate.run", args=[{"prompt": "Hello", "model": "gpt-4o-mini"}])
        assert answer.get(timeout=WITHIN_S)["status"] == "succeeded"


def _in(seconds: float, zone: Any = None) -> datetime:
    return datetime.now(UTC).astimezone(zone or UTC) + timedelta(seconds=seconds)


PAST: dict[str, Callable[[], Any]] = {
    "seconds": lambda: -1,
    "a moment in UTC": lambda: _in(-1),
    "a moment in New York": lambda: _in(-1, ZoneInfo("America/New_York")),
    "a moment five hours ahead": lambda: _in(-1, timezone(timedelta(hours=5))),
    "a moment without a zone, in UTC": lambda: _in(-1).replace(tzinfo=None),
}


@pytest.mark.parametrize("form", PAST)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_a_message_past_its_expires_is_revoked_and_expired_on_record_and_costs_nothing(
    stock: Stock, form: str, zone: str
) -> None:
    stock.app.conf.update(timezone=zone)
    asked = stock.simulator.stats()["requests"]
    answer = stock.send(f"{form} {zone}", expires=PAST[form]())
    assert is_revoked(answer)
    record = record_of(stock, answer)
    assert (record["status"], record["error"]["code"]) == ("expired", "expired")
    assert (record["attempts"], record["cost_usd"]) == (0, "0")
    assert stock.simulator.stats()["requests"] == asked


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_a_message_before_its_expires_is_run(stock: Stock, zone: str) -> None:
    stock.app.conf.update(timezone=zone)
    for expires in (600, _in(600, ZoneInfo(zone)), _in(600).replace(tzinfo=None)):
        answer = stock.send(f"in time {expires}", expires=expires)
        assert answer.get(timeout=WITHIN_S)["status"] == "succeeded"


def test_a_message_that_expires_while_its_queue_is_paused_is_never_asked(
    stock: Stock, paused: None
) -> None:
    answer = stock.send("expires while it is paused", expires=1)
    lists = lists_of(stock.keys, QUEUE)
    wait_until(lambda: stock.client.exists(lists[0]), 10, "the message")
    message: Any = stock.client.lindex(lists[0], 0)
    moment = json.loads(message)["headers"]["expires"]
    wait_until(lambda: datetime.now(UTC) > datetime.fromisoformat(moment), 10, "its end")
    resume(stock)
    assert is_revoked(answer)


@pytest.mark.parametrize("deadline_s", [1, 600])
def test_a_job_that_waits_for_its_limit_is_revoked_at_its_expires_and_fails_at_its_deadline(
    stock: Stock, deadline_s: float
) -> None:
    stock.client.sadd(stock.keys.paused(), "tenant/slow")
    expires = 2 if deadline_s == 600 else 600
    answer = stock.send("waits", tenant="slow", deadline_s=deadline_s, expires=expires)
    if deadline_s == 600:
        assert is_revoked(answer)
        code = "expired"
    else:
        code = failure(answer).code
        assert code == "deadline"
    record = record_of(stock, answer)
    assert (record["status"], record["error"]["code"]) == ("expired", code)
    stock.client.srem(stock.keys.paused(), "tenant/slow")


def test_a_countdown_and_an_eta_hold_and_end_where_they_expire(stock: Stock) -> None:
    began = datetime.now(UTC)
    later = stock.send("countdown", countdown=2)
    at = stock.send("eta", eta=_in(2, ZoneInfo("Asia/Tokyo")))
    for answer in (later, at):
        result = answer.get(timeout=WITHIN_S)
        submitted = datetime.fromisoformat(result["submitted_at"])
        assert submitted - began >= timedelta(seconds=1.9)
    assert is_revoked(stock.send("never", countdown=3600, expires=1))


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "pickle": ({"serializer": "pickle"}, "unreadable", "content-type"),
    "compressed": ({"compression": "zlib"}, "unreadable", "compression"),
    "a long id": ({"task_id": "x" * 129}, "unreadable", "headers.id"),
    "no arguments": ({"args": []}, "invalid_request", "prompt"),
    "a number": ({"args": [7]}, "invalid_request", "request"),
    "a wrong type": ({"args": [{"prompt": ["x"]}]}, "invalid_request", "prompt"),
    "an unknown field": ({"args": [{"prompt": "x", "promt": 1}]}, "invalid_request", "promt"),
    "an envelope of a far release": ({"args": [{"v": 99}]}, "unreadable", "version 99"),
    "an odd time limit": ({"time_limit": -1}, "unreadable", "headers.timelimit"),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_a_message_that_is_refused_is_a_failure_with_the_reason(stock: Stock, shape: str) -> None:
    options, code, word = REFUSED[shape]
    answer = stock.send(**options)
    error = failure(answer)
    assert (error.code, error.job_id) == (code, answer.id)
    assert word in error.message
    assert pickle.loads(pickle.dumps(error)).code == code  # noqa: S301  # our own bytes
    if code == "unreadable":
        letters = json.loads(headgate(["dead", "list", "--json"], stock.env).out.splitlines()[0])
        assert word in letters["reason"]


def test_a_refused_message_never_hides_the_result_of_a_job(stock: Stock) -> None:
    answer = stock.send("the first")
    result = answer.get(timeout=WITHIN_S)
    message = stock_message(answer.id)
    message["content-type"] = "application/x-python-serialize"
    letters = stock.client.llen(stock.keys.dead())
    stock.client.lpush(stock.keys.queue(QUEUE), json.dumps(message))
    wait_until(lambda: stock.client.llen(stock.keys.dead()) > letters, 20, "the dead letter")
    again: AsyncResult[Any] = AsyncResult(answer.id, app=stock.app)
    assert (again.state, again.result) == ("SUCCESS", result)


def test_a_dead_letter_that_is_retried_waits_for_its_new_end(stock: Stock) -> None:
    answer = stock.send("compressed", compression="zlib")
    failure(answer)
    letter = json.loads(headgate(["dead", "list", "--json"], stock.env).out.splitlines()[0])
    assert letter["job_id"] == answer.id
    stock.client.sadd(stock.keys.paused(), f"queue/{QUEUE}")
    assert headgate(["dead", "retry", letter["id"]], stock.env).code == 0
    assert AsyncResult(answer.id, app=stock.app).state == "PENDING"
    resume(stock)
    assert failure(AsyncResult(answer.id, app=stock.app)).code == "unreadable"


def test_the_books_have_one_line_for_each_message_that_became_a_job(stock: Stock) -> None:
    books = installation.read_books(installation.database_url(stock.env))
    assert books.audit_lines == sum(books.jobs.values())
    assert books.attempts.get("unknown", 0) == 0
