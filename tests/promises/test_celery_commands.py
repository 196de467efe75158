"""The commands of `celery -A headgate.workers.app`, on one worker that serves all tests here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery
from celery.result import AsyncResult

from headgate import Client, Result
from headgate.producer.errors import UnknownJob
from headgate.shared.broker.queues import lists_of
from headgate.shared.settings import Settings
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.stock import NODE, QUEUE, Stock, opened, state_of

SECRET = "the words of the caller"  # noqa: S105  # no password: what must not be seen
SLOW = f"[[fault:slow:ms=60000]] {SECRET}"
WITHIN_S = 20 * BUSY


class Said(NamedTuple):
    """The exit code of a command, and all that it has printed."""

    code: int
    text: str


Run = Callable[..., Said]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    with opened(tmp_path_factory.mktemp("stock"), HEADGATE_SWEEP_S="1") as found:
        yield found


@pytest.fixture(scope="module")
def celery(stock: Stock) -> Iterator[Run]:
    """Return a function that runs a command of Celery's, all of them in one process."""
    argv = [sys.executable, "-m", "tests.support.celery_commands"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **stock.env},
    ) as process:  # fmt: skip

        def run(*words: str, typed: str = "") -> Said:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"words": words, "typed": typed}) + "\n")
            process.stdin.flush()
            return Said(*json.loads(process.stdout.readline()))

        yield run
        process.kill()


@pytest.fixture
def inspect(celery: Run) -> Callable[..., Any]:
    """Return a function that gives what the worker answers to `celery inspect`."""

    def ask(*words: str) -> Any:
        said = celery("inspect", "--json", "-t", str(WITHIN_S), "-d", NODE, *words)
        assert said.code == 0, said
        return json.loads(said.text.splitlines()[0])[NODE]

    return ask


@pytest.fixture
def control(celery: Run) -> Callable[..., str]:
    """Return a function that gives the worker's word on a command of `celery control`."""

    def tell(*words: str) -> str:
        said = celery("control", "--json", "-t", str(WITHIN_S), "-d", NODE, *words)
        assert said.code == 0, said
        [[reply]] = [list(one.values()) for one in json.loads(said.text.splitlines()[0])]
        return str(reply.get("ok") or reply.get("error")) if isinstance(reply, dict) else str(reply)

    return tell


@pytest.fixture
def running(stock: Stock) -> Iterator[AsyncResult[Any]]:
    """A job that its provider does not answer for a minute."""
    answer = stock.send(SLOW, tenant="acme", cache={"mode": "off"})
    wait_until(lambda: stock.simulator.stats()["open_now"] == 1, 20, "the call")
    yield answer
    stock.app.control.revoke(answer.id, terminate=True)
    wait_until(lambda: not stock.client.exists(stock.keys.leases()), 20, "the job to end")


def test_status_and_ping_find_the_worker(celery: Run, inspect: Callable[..., Any]) -> None:
    said = celery("status", "-t", str(WITHIN_S), "-d", NODE)
    assert said.code == 0
    assert f"{NODE}: OK" in said.text
    assert inspect("ping") == {"ok": "pong"}


def test_inspect_shows_a_running_job_by_model_and_tenant_and_never_its_prompt(
    stock: Stock, running: AsyncResult[Any], inspect: Callable[..., Any]
) -> None:
    [active] = inspect("active")
    assert active["id"] == running.id
    assert active["kwargs"] == "{'model': 'gpt-4o-mini', 'tenant': 'acme'}"
    [(state, asked)] = inspect("query_task", running.id).values()
    assert (state, asked["id"]) == ("active", running.id)
    assert inspect("stats")["pool"]["running"] == 1
    assert inspect("reserved") == []
    assert SECRET not in str((active, asked))


def test_inspect_lists_what_waits_for_its_moment(stock: Stock, inspect: Callable[..., Any]) -> None:
    answer = stock.send("later", countdown=3600)
    wait_until(lambda: stock.client.exists(stock.keys.due()), 20, "the due list")
    [waits] = [one for one in inspect("scheduled") if one["request"]["id"] == answer.id]
    assert waits["request"]["name"] == "headgate.run"
    assert waits["eta"].endswith("Z")
    stock.client.zrem(stock.keys.due(), answer.id)


def test_inspect_tells_what_the_worker_is(inspect: Callable[..., Any]) -> None:
    assert [queue["name"] for queue in inspect("active_queues")][:2] == [
        "headgate.interactive.fast", "headgate.interactive.smart",
    ]  # fmt: skip
    assert inspect("registered") == ["headgate.run"]
    assert inspect("conf")["task_default_queue"] == QUEUE
    assert isinstance(inspect("revoked"), list)
    assert inspect("clock")["clock"] > 0
    assert "celery" in inspect("report")["ok"]
    assert inspect("memsample").endswith("MB")
    inspect("memdump")


def test_control_changes_the_slots_and_refuses_with_a_word_what_this_pool_cannot(
    control: Callable[..., str],
) -> None:
    assert "up to 502 jobs" in control("pool_grow", "2")
    assert "up to 500 jobs" in control("pool_shrink", "2")
    assert "pool_grow" in control("autoscale", "10", "2")
    assert "SIGTERM" in control("pool_restart")
    assert "headgate limits set" in control("rate_limit", "headgate.run", "5/s")
    assert "refused" in control("election")


def test_control_adds_and_takes_away_a_queue(
    stock: Stock, inspect: Callable[..., Any], control: Callable[..., str]
) -> None:
    def names() -> list[str]:
        return [queue["name"] for queue in inspect("active_queues")]

    assert "own" in control("add_consumer", "own")
    wait_until(lambda: "own" in names(), 20, "the queue")
    assert stock.send("on it", queue="own").get(timeout=WITHIN_S)["status"] == "succeeded"
    assert "own" in control("cancel_consumer", "own")
    wait_until(lambda: "own" not in names(), 20, "the queue to go")


def test_a_time_limit_holds_for_jobs_that_come_later(
    stock: Stock, control: Callable[..., str]
) -> None:
    assert "success" in control("time_limit", "headgate.run", "0.5")
    answer = stock.send("[[fault:slow:ms=60000]] is cut off", cache={"mode": "off"})
    error = answer.get(timeout=WITHIN_S, propagate=False)
    assert (state_of(answer), error.code) == ("FAILURE", "timeout")
    assert "success" in control("time_limit", "headgate.run", "0")


def test_revoke_cancels_a_job_that_has_not_come_yet(
    stock: Stock, control: Callable[..., str]
) -> None:
    answer = stock.send("revoked before", countdown=3600)
    is_due = lambda: stock.client.zscore(stock.keys.due(), answer.id) is not None  # noqa: E731
    wait_until(is_due, 20, "the due list")
    assert answer.id in control("revoke", answer.id)
    answer.get(timeout=WITHIN_S, propagate=False)
    assert state_of(answer) == "REVOKED"
    stock.client.zrem(stock.keys.due(), answer.id)


def test_revoke_by_stamped_headers_cancels_what_bears_the_stamp(
    stock: Stock, control: Callable[..., str]
) -> None:
    assert "flagged" in control("revoke_by_stamped_headers", "who=ada")
    other = stock.send("of Bob", stamped_headers=["who"], who="bob")
    hers = stock.send("of Ada", stamped_headers=["who"], who=["eve", "ada"])
    assert other.get(timeout=WITHIN_S)["status"] == "succeeded"
    hers.get(timeout=WITHIN_S, propagate=False)
    assert state_of(hers) == "REVOKED"


def test_revoke_cancels_jobs_on_record_that_wait_and_messages_that_nobody_has_taken(
    stock: Stock, control: Callable[..., str]
) -> None:
    asked = stock.simulator.stats()["requests"]
    stock.client.sadd(stock.keys.paused(), "tenant/acme", f"queue/{QUEUE}")
    in_force = Settings(home=Path(stock.env["HEADGATE_HOME"]), redis_url=stock.valkey.url)
    with Client(in_force) as client:
        job = client.submit("waits", model="gpt-4o", tenant="acme")
        message = stock.send("waits")
        assert job.id in control("revoke", job.id, message.id)
        result = client.result(job.id, wait=True, timeout_s=WITHIN_S)
        assert (result.status, result.attempts) == ("cancelled", 0)
        for task_id in (job.id, message.id):
            answer: AsyncResult[Any] = AsyncResult(task_id, app=stock.app)
            answer.get(timeout=WITHIN_S, propagate=False)
            assert state_of(answer) == "REVOKED"
        stock.client.delete(stock.keys.paused())
        result = on_record(client, message.id)
        assert (result.status, result.attempts) == ("cancelled", 0)
    assert stock.simulator.stats()["requests"] == asked


def on_record(client: Client, job_id: str) -> Result:
    """Return the result of a message that a worker has not taken yet."""

    def is_known() -> bool:
        with suppress(UnknownJob):
            return bool(client.status(job_id))
        return False

    wait_until(is_known, 20, "the message to be taken")
    return client.result(job_id, wait=True, timeout_s=WITHIN_S)


def test_terminate_stops_a_running_job(
    stock: Stock, running: AsyncResult[Any], control: Callable[..., str]
) -> None:
    assert running.id in control("terminate", "SIGTERM", running.id)
    running.get(timeout=WITHIN_S, propagate=False)
    assert state_of(running) == "REVOKED"


def test_purge_asks_first_and_empties_all_lists_of_a_queue(stock: Stock, celery: Run) -> None:
    stock.client.sadd(stock.keys.paused(), f"queue/{QUEUE}")
    for priority in (0, 3, 9):
        stock.send("purged", priority=priority)
    lists = lists_of(stock.keys, QUEUE)
    assert celery("purge", typed="n\n").code == 1
    assert stock.client.exists(*lists) == 3
    said = celery("purge", "-f")
    assert "Purged 3 messages" in said.text
    assert not stock.client.exists(*lists)
    stock.client.srem(stock.keys.paused(), f"queue/{QUEUE}")


def test_the_other_commands_answer(stock: Stock, celery: Run) -> None:
    answer = stock.send("for celery result")
    answer.get(timeout=WITHIN_S)
    assert "succeeded" in celery("result", answer.id).text
    assert "headgate.bulk.fast" in celery("list", "bindings").text
    assert "transport:redis" in celery("report").text


def test_graph_draws_the_worker(celery: Run) -> None:
    bootsteps = celery("graph", "bootsteps")
    assert bootsteps.text.startswith("digraph")
    assert "JobConsumer" in bootsteps.text
    workers = celery("graph", "workers")
    assert NODE in workers.text


def test_events_tell_each_end_with_its_code_and_never_a_prompt(
    stock: Stock, control: Callable[..., str]
) -> None:
    argv = [sys.executable, "-m", "celery", "-A", "headgate.workers.app", "events", "--dump"]
    log = stock.worker.log_path.parent / "events.log"
    with ChildProcess(argv, log_path=log, env=stock.env) as dump:
        assert "enabled" in control("enable_events")
        wait_until(lambda: "heartbeat" in dump.log(), 30, "the events")
        ends = {
            "succeeded": stock.send(SECRET),
            "failed": stock.send(f"[[fault:400]] {SECRET}", fallback=False),
            "late": stock.send(SECRET, deadline_s=0.001),
            "expired": stock.send(SECRET, expires=-1),
            "refused": stock.send(SECRET, serializer="pickle"),
            "cancelled": stock.send(SLOW, tenant="acme", cache={"mode": "off"}),
        }
        wait_until(lambda: stock.simulator.stats()["open_now"] == 1, 20, "the slow call")
        stock.app.control.revoke(ends["cancelled"].id, terminate=True)
        for answer in ends.values():
            answer.get(timeout=WITHIN_S, propagate=False)
        kinds = {"succeeded": "succeeded", "failed": "failed", "late": "failed"}
        kinds |= {"expired": "revoked", "cancelled": "revoked"}

        def told(name: str) -> str:
            lines = [line for line in dump.log().splitlines() if ends[name].id in line]
            return next((line for line in lines if f" {kinds[name]}:" in line), "")

        del ends["refused"]  # Celery prints no id of a task that it has not received
        wait_until(lambda: "JobFailed('unreadable')" in dump.log(), 20, "the event of a refusal")
        for name in ends:
            wait_until(lambda: told(name), 20, f"the event of {name}")  # noqa: B023
        assert "JobFailed('invalid_request')" in told("failed")
        assert "JobFailed('deadline')" in told("late")
        assert "TaskRevokedError('expired')" in told("expired")
        assert "expired=True" in told("expired")
        assert "TaskRevokedError('cancelled')" in told("cancelled")
        assert "tenant" in dump.log()
        assert SECRET not in dump.log()
        dump.kill()
    assert "disabled" in control("disable_events")


def test_nothing_of_all_that_was_a_fault_or_told_a_prompt(stock: Stock) -> None:
    assert stock.worker.running
    log = stock.worker.log()
    assert "Traceback" not in log
    assert SECRET not in log


def test_shutdown_ends_the_worker(stock: Stock, celery: Run) -> None:
    with Celery(broker=stock.valkey.url, set_as_current=False) as app:
        app.control.shutdown(destination=[NODE])
    wait_until(lambda: not stock.worker.running, 30, "the worker to end")
    assert stock.worker.exit_code() == 0
    assert "No nodes replied" in celery("status", "-t", "1").text
