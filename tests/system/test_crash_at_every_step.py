"""A worker is killed at each step of a job's way; each job ends once, and the books agree.

A killed worker's leases are made to lapse at once, by moving the marks on the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.celery_nodes import WorkerProcess
from tests.servers import PostgresServer, ValkeyServer, short_folder
from tests.system.rig_crash import AT_ONCE, MIXED, Line, open_line

WAY = [
    ("taken", 1), ("arrived", 20), ("claimed", 20), ("recalled", 20), ("held", 15),
    ("opened", 10), ("called", 10), ("answered", 6), ("refused", 3), ("settled", 3),
    ("adjusted", 3), ("concluded", 6), ("published", 6), ("deferred", 2),
    ("parking", 2), ("parked", 2), ("acknowledging", 2), ("acknowledged", 2), ("renewed", 1),
]  # fmt: skip
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


def on(database: str, steps: list[tuple[str, int]]) -> list[tuple[str, str, int]]:
    return [(database, step, count) for step, count in steps]


def a_worker(line: Line) -> WorkerProcess:
    """The worker that the test before left idle, or a new one."""
    line.order("")
    running = [worker for worker in line.workers if worker.running]
    return running[0] if running else line.worker()


@pytest.mark.parametrize(
    ("line", "step", "count"),
    on("sqlite", WAY) + on("postgresql", ON_RECORD),
    indirect=["line"],
)
def test_a_worker_killed_at_any_step_loses_and_repeats_no_end(
    line: Line, step: str, count: int
) -> None:
    worker = a_worker(line)
    unknown = line.count_crashed()
    line.order(f"{step} {count} kill")
    if step == "renewed":  # leases are renewed at once where a job is to be cancelled
        line.client.zadd(line.broker.keys.cancels(), {"another job": 1})
    ids = line.submit(MIXED)
    in_flight = line.dies(worker)
    line.order("")
    line.client.delete(line.broker.keys.cancels())
    line.lapse()
    line.worker()
    line.wait_until_ended(ids)
    line.each_ended_once(ids)
    line.the_books_agree()
    assert line.count_crashed() - unknown == in_flight <= AT_ONCE
