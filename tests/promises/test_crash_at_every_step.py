"""A worker is killed at each step of a job's way; each job ends once, and the books agree.

A killed worker's leases are made to lapse at once, by moving the marks on the server.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.crash_installation import AT_ONCE, MIXED, Line, open_line
from tests.support.servers import PostgresServer, ValkeyServer, short_folder

WAY = [
    ("taken", 1), ("arrived", 20), ("claimed", 20), ("recalled", 20), ("held", 15),
    ("opened", 10), ("called", 10), ("answered", 6), ("refused", 3), ("settled", 3),
    ("adjusted", 3), ("concluded", 6), ("published", 6), ("deferred", 2),
    ("parking", 2), ("parked", 2), ("acknowledging", 2), ("acknowledged", 2), ("renewed", 1),
]  # fmt: skip
ALONE = ["taken", "opened", "called", "answered", "parking"]
"""Steps at which a worker dies twice over the same job."""

ON_RECORD = [("claimed", 20), ("opened", 10), ("settled", 3), ("concluded", 6), ("deferred", 2)]


@pytest.fixture(scope="module")
def line(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Line]:
    """An installation on the named database with one idle worker; all tests of it in turn."""
    folder = tmp_path_factory.mktemp("crash")
    with ExitStack() as stack:
        if request.param == "postgresql":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            url = stack.enter_context(postgres.database())
        else:
            url = f"sqlite:///{folder / 'headgate.db'}"
        server = ValkeyServer(stack.enter_context(short_folder()), lasting=True)
        stack.callback(server.kill)
        yield stack.enter_context(open_line(folder, server.start(), url))


def a_worker(line: Line) -> WorkerProcess:
    """The worker that the test before left idle, or a new one."""
    line.order("")
    running = [worker for worker in line.workers if worker.running]
    return running[0] if running else line.worker()


@pytest.mark.parametrize("line", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("step", "count"), WAY)
def test_a_worker_killed_at_any_step_loses_no_job_and_ends_none_twice(
    line: Line, step: str, count: int
) -> None:
    kill_at(line, step, count)


@pytest.mark.parametrize("line", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("step", "count"), ON_RECORD)
def test_the_same_holds_at_the_steps_of_a_record_in_postgresql(
    line: Line, step: str, count: int
) -> None:
    kill_at(line, step, count)


def kill_at(line: Line, step: str, count: int) -> None:
    """A worker with many jobs of all kinds dies there; afterwards all is as if it had not."""
    worker = a_worker(line)
    unknown = line.count_crashed()
    line.order(f"{step} {count} kill")
    kinds = MIXED
    if step == "renewed":  # as soon as some job is to be cancelled, within a second
        kinds = MIXED + Counter({"slow once": 2})
        line.client.zadd(line.broker.keys.cancels(), {"another job": 1})
    ids = line.submit(kinds)
    in_flight = line.dies(worker)
    line.order("")
    line.client.delete(line.broker.keys.cancels())
    line.lapse()
    line.worker()
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()
    assert line.count_crashed() - unknown == in_flight <= AT_ONCE


@pytest.mark.parametrize("line", ["sqlite"], indirect=True)
@pytest.mark.parametrize("step", ALONE)
def test_two_kills_in_a_row_over_one_job_leave_at_most_one_unknown_attempt_each(
    line: Line, step: str
) -> None:
    worker = a_worker(line)
    unknown, asked = line.count_crashed(), line.simulator.stats()["requests"]
    line.order(f"{step} 1 kill")
    # The second worker parks the job again only while the time told by the 529 is still to come.
    ids = line.submit({"put off for long" if step == "parking" else "plain": 1})
    assert line.dies(worker) <= 1
    line.lapse()
    assert line.dies(line.worker()) <= 1
    line.lapse()
    line.order("")
    line.worker()
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()
    assert line.count_crashed() - unknown <= 2
    assert line.simulator.stats()["requests"] - asked <= 3


@pytest.mark.parametrize("line", ["sqlite"], indirect=True)
@pytest.mark.parametrize("step", ["released", "restoring", "restored"])
def test_a_worker_killed_while_it_gives_its_jobs_back_loses_none(line: Line, step: str) -> None:
    worker = a_worker(line)
    before = line.simulator.stats()["faulted"]
    ids = line.submit({"slow": 20})  # the first time: they run until the worker is stopped
    all_asked = lambda: line.simulator.stats()["faulted"] == before + 20  # noqa: E731
    wait_until(all_asked, 20, "calls to be under way")
    line.order(f"{step} 1 kill")
    worker.signal(signal.SIGTERM)
    line.dies(worker)
    line.order("")
    line.lapse()
    line.worker()
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()


@pytest.mark.parametrize("line", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("step", ["sending", "sent"])
def test_a_worker_killed_while_its_sweep_sends_again_loses_none_and_sends_none_twice(
    line: Line, step: str
) -> None:
    a_worker(line).kill()
    line.lapse()
    ids = line.submit(MIXED)
    line.forget()
    line.order(f"{step} 1 kill")
    line.dies(line.worker(HEADGATE_SWEEP_S="0.1"))
    line.order("")
    line.lapse()
    line.worker(HEADGATE_SWEEP_S="0.1")
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()


@pytest.mark.parametrize("line", ["sqlite"], indirect=True)
@pytest.mark.parametrize("step", ["sending", "sent"])
def test_a_producer_killed_between_row_and_message_or_after_it_loses_no_job(
    line: Line, step: str
) -> None:
    """Rows without a message are sent by the sweep; a message whose sender died is a job."""
    a_worker(line).kill()
    line.order(f"{step} 1 kill", "producer")
    known = set(line.ids())
    line.dies(line.producer(30))
    ids = [job_id for job_id in line.ids() if job_id not in known]
    assert len(ids) == 30
    assert len(line.broker.present()) == (0 if step == "sending" else 30)
    line.worker(HEADGATE_SWEEP_S="0.1")
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()
