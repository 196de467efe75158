"""Workers that come late: frozen past their lease, starved, or with a clock that is wrong.

Orders (tests/support/crash.py) freeze a worker at a named step, while another one works beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from sqlalchemy import select

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import audit
from headgate.shared.job.ids import now_ms
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.crash_installation import MIXED, Line, open_line
from tests.support.servers import PostgresServer, ValkeyServer, short_folder

LEASE = {"HEADGATE_LEASE_S": "2"}
LONGER = {"HEADGATE_LEASE_S": "6"}
"""A worker that was thawed has as long as this to renew, which a busy machine needs."""
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """An installation on SQLite, with a Valkey of its own."""
    folder = tmp_path_factory.mktemp("late")
    url = f"sqlite:///{folder / 'headgate.db'}"
    with (
        short_folder() as short,
        ValkeyServer(short, lasting=True) as server,
        open_line(folder, server, url) as line,
    ):
        yield line


@pytest.fixture(scope="module")
def on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Line]:
    """The same on PostgreSQL."""
    folder = tmp_path_factory.mktemp("late")
    with (
        postgres.database() as url,
        short_folder() as short,
        ValkeyServer(short, lasting=True) as server,
        open_line(folder, server, url) as line,
    ):
        yield line


@pytest.fixture
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """The installation without workers; those of the test end with it."""
    installation: Line = request.getfixturevalue(getattr(request, "param", "on_sqlite"))
    yield installation
    installation.end_workers()


#: A worker of SQLite that is frozen in the middle of a write holds up all others until it goes on.
FREEZES = pytest.mark.parametrize("line", ["on_postgresql"], indirect=True)


def frozen(worker: WorkerProcess) -> bool:
    return psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED


def open_calls(line: Line) -> int:
    count: int = line.simulator.stats()["open_now"]
    return count


@pytest.mark.parametrize("step", ["taken 1", "called 3"])
@FREEZES
def test_a_worker_that_was_frozen_past_its_lease_ends_no_job_twice(line: Line, step: str) -> None:
    line.order(f"{step} freeze")
    late = line.worker(**LEASE)
    ids = line.submit(MIXED + MIXED)  # more than one can hold: both have some
    wait_until(lambda: frozen(late), 30, "the worker to freeze")
    other = line.worker("two", **LEASE)
    line.lapse("one")
    line.wait_until_ended(ids)
    line.order("")
    late.thaw()
    other.kill()
    more = line.submit({"plain": 10})
    line.wait_until_ended(more)
    assert late.running
    wait_until(lambda: open_calls(line) == 0, 10, "all calls to be closed")
    line.each_ended_once(ids + more)
    line.the_books_agree()


@FREEZES
def test_the_call_of_a_late_worker_is_closed_when_its_job_has_ended_elsewhere(line: Line) -> None:
    """Its answer would come after five minutes; the one beside it is answered at once."""
    late = line.worker(**LEASE)
    [job_id] = line.submit({"slow": 1})
    wait_until(lambda: open_calls(line) == 1, 30, "the call to be under way")
    late.freeze()
    wait_until(lambda: frozen(late), 30, "the worker to freeze")
    line.worker("two", **LEASE)
    line.wait_until_ended([job_id])
    assert open_calls(line) == 1
    late.thaw()
    wait_until(lambda: open_calls(line) == 0, 10, "the call to be closed")
    line.each_ended_once([job_id])
    line.the_books_agree()
    assert late.running


@FREEZES
def test_a_late_worker_that_dies_leaves_no_attempt_open(line: Line) -> None:
    """It is frozen between its claim and its attempt; when it goes on, the job has ended."""
    line.order("held 1 freeze")
    late = line.worker(**LEASE)
    ids = line.submit({"plain": 5})
    wait_until(lambda: frozen(late), 30, "the worker to freeze")
    line.lapse("one")
    line.worker("two", **LEASE)
    line.wait_until_ended(ids)
    asked = line.simulator.stats()["requests"]
    line.order("opened 1 kill")
    late.thaw()
    wait_until(lambda: not late.running or "claim was lost" in late.log(), 20, "what it does next")
    late.kill()
    assert line.count_attempts("open") == 0
    assert line.simulator.stats()["requests"] == asked
    line.the_books_agree()


@FREEZES
def test_a_group_that_is_frozen_again_and_again_loses_and_repeats_nothing(line: Line) -> None:
    """When all stand still, nobody loses a lease: the thawed have time to renew."""
    workers = [line.worker(**LONGER), line.worker("two", **LONGER)]
    unknown = line.count_crashed()
    ids: list[str] = []
    for _ in range(2):
        wait_until(lambda: open_calls(line) == 0, 20, "the calls of the round before to end")
        ids += line.submit({"plain": 20, "slow once": 10})
        wait_until(lambda: open_calls(line) >= 10, 20, "calls to be under way")
        for worker in workers:
            worker.freeze()
        line.let_leases_end()
        for worker in workers:
            worker.thaw()
        wait_until(line.has_been_renewed, 20, "leases to be renewed")
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()
    assert line.count_crashed() == unknown


@pytest.mark.parametrize("beside", [True, False], ids=["another beside it", "alone"])
def test_a_worker_whose_loop_is_held_up_past_its_lease_ends_no_job_twice(
    line: Line, beside: bool
) -> None:
    line.order("answered 3 block:3")
    starved = line.worker(**LEASE)
    if beside:
        line.worker("two", **LEASE)
    unknown = line.count_crashed()
    ids = line.submit(MIXED + MIXED)
    line.wait_until_ended(ids)
    wait_until(lambda: open_calls(line) == 0, 10, "all calls to be closed")
    line.each_ended_once(ids)
    line.the_books_agree()
    assert starved.running
    assert beside or line.count_crashed() == unknown


@pytest.mark.parametrize("shift_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "behind"])
def test_a_worker_whose_clock_is_an_hour_off_ends_all_in_time(line: Line, shift_ms: int) -> None:
    """What it puts off, the other one meets, and the other way round; deadlines are short."""
    line.worker(CRASH_CLOCK_MS=str(shift_ms))
    line.worker("two")
    began_ms = now_ms()
    ids = line.submit({"plain": 10, "put off": 6}, deadline_s=600)
    line.wait_until_ended(ids, hasten=False)
    line.each_ended_once(ids)
    line.the_books_agree()
    query = select(audit.c.finished_at_ms).where(audit.c.job_id.in_(ids))
    with reading(line.engine) as connection:
        ends = list(connection.scalars(query))
    assert began_ms - 1_000 <= min(ends) <= max(ends) <= now_ms() + 1_000
