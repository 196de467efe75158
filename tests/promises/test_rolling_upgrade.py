"""New workers roll in while old ones run: one release apart they share queues, rows and results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from sqlalchemy import func, select

from headgate import Client, RequestFields
from headgate.shared.broker import queues
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.migrate import NEWEST
from headgate.shared.database.tables import jobs
from headgate.shared.job.envelope import NEWEST_VERSION
from headgate.shared.job.ids import new_id
from headgate.shared.settings import Settings
from tests.releases.coming import REVISION, make_next
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.rig import STANDARD, envelope
from tests.support.servers import Simulator, ValkeyServer

MANY = 90

#: A program of the next release: it puts jobs with fields that today's does not know.
SUBMIT = """
import sys
from headgate import Client
more = {"colour": "blue", "cache": {"mode": "exact", "scope": "team"}}
first, count = int(sys.argv[1]), int(sys.argv[2])
with Client() as client:
    ids = client.submit_many(
        {"prompt": f"prompt number {n:06d}", "model": "gpt-4o-mini", "params": {"max_tokens": 5}}
        | more for n in range(first, first + count)
    )
print(*ids, sep="\\n")
"""


@pytest.fixture
def env(
    valkey: ValkeyServer, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> dict[str, str]:
    """Settings of an installation, all but its database."""
    return {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_CONCURRENCY": "5",  # so that each of several workers has a part of the jobs
        "HEADGATE_SWEEP_S": "1",
    }


def submit_next(env: dict[str, str], folder: Path, first: int, count: int) -> list[str]:
    """Ids of jobs that a program of the next release has put."""
    program = installation.command([], env, folder / f"submit-{first}.log")
    program.argv = [program.argv[0], "-c", SUBMIT, str(first), str(count)]
    program.run(60)
    return program.log().split()


def prompts(first: int, count: int) -> list[RequestFields]:
    """The same as a program of this release puts them."""
    return [
        {
            "prompt": f"prompt number {n:06d}",
            "model": installation.MODEL,
            "params": {"max_tokens": 5},
        }
        for n in range(first, first + count)
    ]


@pytest.mark.slow
def test_old_and_new_workers_side_by_side_finish_every_job_once(
    env: dict[str, str],
    database_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "200")
    env |= {"HEADGATE_DATABASE_URL": database_url, "HEADGATE_SIMULATOR_URL": simulator.url}
    coming = env | {"PYTHONPATH": str(make_next(tmp_path / "next"))}
    settings = Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=database_url, home=tmp_path
    )
    assert headgate(["db", "upgrade"], env).code == 0
    before, late, new = (
        installation.worker_process(env, tmp_path, "before"),
        installation.worker_process(env, tmp_path, "late"),
        installation.worker_process(coming, tmp_path, "new"),
    )

    def ended() -> int:
        return installation.count_ended(database_url)

    with installation.ended_afterwards(before, late, new), Client(settings) as client:
        before.start()
        ids = client.submit_many(prompts(0, MANY))
        wait_until(lambda: ended() > 10, 20, "the first jobs")
        upgraded = headgate(["db", "upgrade"], coming)
        assert REVISION in upgraded.out, upgraded
        new.start()
        late.start()  # an old worker that starts on the newer tables
        theirs = submit_next(coming, tmp_path, MANY, MANY)
        ids += client.submit_many(prompts(2 * MANY, MANY))
        wait_until(lambda: ended() > 2 * MANY, 60, "most jobs")
        assert before.stop(30) == 0
        assert late.stop(30) == 0
        wait_until(lambda: ended() == 3 * MANY, 60, "all jobs")
        assert {client.result(one).status for one in ids + theirs} == {"succeeded"}
        assert headgate(["db", "check"], env).code == 0
        ours_to_them = headgate(["result", ids[0], "--json"], coming)
        assert ours_to_them.document["status"] == "succeeded", ours_to_them
        assert new.stop(30) == 0
    installation.the_books_agree(database_url, simulator, 3 * MANY, unknown=0)
    by_worker = rows_by_worker(database_url)
    assert len(by_worker) == 3, by_worker
    for worker in (before, late, new):
        assert "Traceback" not in worker.log(), worker.log_from("Traceback")

    assert headgate(["db", "downgrade", NEWEST, "--yes"], coming).code == 0
    check = headgate(["db", "check", "--json"], env)
    assert (check.code, check.document["differences"]) == (0, []), check
    assert rows_by_worker(database_url) == by_worker


def rows_by_worker(url: str) -> dict[str, int]:
    """How many jobs each worker ended."""
    engine = open_engine(url)
    with reading(engine) as connection:
        query = select(jobs.c.worker, func.count()).group_by(jobs.c.worker)
        found = {name: int(n) for name, n in connection.execute(query)}
    engine.dispose()
    return found


@pytest.mark.slow
def test_a_job_of_the_next_envelope_is_left_for_a_newer_worker(
    env: dict[str, str],
    sqlite_url: str,
    valkey: ValkeyServer,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory()
    env |= {"HEADGATE_DATABASE_URL": sqlite_url, "HEADGATE_SIMULATOR_URL": simulator.url}
    tree = make_next(tmp_path / "next", envelope_version=NEWEST_VERSION + 1)
    coming = env | {"PYTHONPATH": str(tree)}
    old = installation.worker_process(env, tmp_path, "old")
    new = installation.worker_process(coming, tmp_path, "new")

    def letters() -> list[str]:
        return headgate(["dead", "list", "--json"], env).out.splitlines()

    with installation.ended_afterwards(old, new), valkey.client() as broker:
        old.start()
        theirs = submit_next(coming, tmp_path, 0, 20)
        wait_until(lambda: broker.zcard("headgate:due") == 20, 20, "all to be left")
        put_envelope(valkey, v=NEWEST_VERSION + 2)
        late = put_envelope(valkey, v=NEWEST_VERSION + 1, submitted_at_ms=1, deadline=1.0)
        ours = headgate(["submit", "--wait", "still served"], env)
        assert ours.code == 0, ours
        wait_until(lambda: broker.llen("headgate.dead") == 2, 20, "two dead letters")
        told = " ".join(json.loads(letter)["reason"] for letter in letters())
        assert f"envelope version {NEWEST_VERSION + 2} is not known here" in told
        assert "no worker of it came before the job's deadline" in told
        new.start()
        wait_until(
            lambda: installation.count_ended(sqlite_url) > 1, 30, "the newer worker to end one"
        )
        assert old.log().count("leaving jobs of the next release to workers of that release") == 1
        # While both run, chance gives a job to the old one again, and each time it waits longer.
        assert old.stop(20) == 0
        wait_until(
            lambda: installation.count_ended(sqlite_url) == 21, 30, "the newer worker to end them"
        )
        assert new.stop(20) == 0
    assert installation.read_books(sqlite_url).jobs == {"succeeded": 21}
    assert late not in theirs
    with valkey.client() as broker:
        assert broker.llen("headgate.dead") == 2


def put_envelope(valkey: ValkeyServer, *, deadline: float = 60.0, **fields: object) -> str:
    """The id of a job on a queue whose envelope has these fields laid over."""
    job = envelope(new_id(), deadline_s=deadline)
    encoded = orjson.dumps(orjson.loads(job.encode()) | fields)
    with valkey.client() as broker:
        broker.lpush(STANDARD, queues.message(job, encoded))
    return job.id
