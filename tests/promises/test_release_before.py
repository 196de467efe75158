"""Workers and producers of the release before run beside today's on one Redis and one database."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import count, islice
from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate import Client, Request
from headgate.producer.usage.query import usage
from headgate.shared.broker.keys import Keys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.usage_rollup import DAY_MS
from headgate.shared.settings import Settings
from headgate.workers.maintenance.usage_rollup import HOUR_MS, UsageRollup
from tests import ROOT
from tests.promises.test_rolling_upgrade import rows_by_worker
from tests.support import installation
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.command import headgate
from tests.support.git_trees import tree_of
from tests.support.servers import Simulator, ValkeyServer
from tests.support.usage import START_MS, line, put

BEFORE = "031c226"
"""The last commit of the release before this one."""

MANY = 60

#: The worker of the release before rolls usage up for nine rounds, and its reports are printed.
ROLL_UP = """
import asyncio, json, os, sys
import headgate
from headgate.producer.usage.query import usage
from headgate.shared.database.engine import open_engine
from headgate.workers.maintenance.usage_rollup import UsageRollup
tree, first_ms, by = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
assert headgate.__file__.startswith(tree), headgate.__file__
engine, now_ms = open_engine(os.environ["HEADGATE_DATABASE_URL"]), first_ms
rollup = UsageRollup(engine, lambda: now_ms)
async def rounds():
    global now_ms
    for _ in range(9):
        await rollup.round()
        now_ms += 61_000
asyncio.run(rounds())
print(json.dumps([usage(engine, one).as_json() for one in by]))
"""

BY = ["", "user", "model", "user,model", "batch", "day", "month", "model,month"]

#: Submits distinct jobs, equal ones that share calls, samples, and one that is streamed.
#: Asserts that its package lies in this tree. Prints the ids.
SUBMIT = """
import sys
import headgate
from headgate import Client
tree, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
assert headgate.__file__.startswith(tree), headgate.__file__
fields = {"model": "gpt-4o-mini", "params": {"max_tokens": 5}}
with Client() as client:
    ids = client.submit_many(
        fields | {"prompt": f"prompt number {n:06d}"} for n in range(first, first + count)
    )
    ids += client.submit_many([fields | {"prompt": "prompt number equal."}] * 20)
    ids += client.submit_many([fields | {"prompt": "prompt number sample."}], samples=3)
    several = {"model": "gpt-4o-mini", "params": {"max_tokens": 5, "n": 2}}
    ids.append(client.submit("prompt number several.", **several).id)
    ids.append(client.submit("prompt number stream", stream=True, **fields).id)
    assert "".join(client.stream(ids[-1], timeout_s=120)) == client.result(ids[-1]).content
    assert {client.result(one, timeout_s=120).status for one in ids} == {"succeeded"}
    refused = client.submit("[[fault:400]]", model="gpt-4o-mini", fallback=False)
    assert client.result(refused.id, timeout_s=120).error.code == "invalid_request"
print(*ids, sep="\\n")
"""

JOBS_OF_EACH = MANY + 20 + 3 + 1 + 1


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The tree of the release before, as git has it; with it in PYTHONPATH, programs import it."""
    tree = tree_of(BEFORE, tmp_path / "before")
    argv = [sys.executable, "-c", "import headgate.workers as w; print(w.__file__)"]
    env = os.environ | {"PYTHONPATH": str(tree)}
    found = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    assert found.strip() == str(tree / "headgate" / "workers" / "__init__.py")
    return tree


def producer(tree: Path, env: dict[str, str], folder: Path, first: int) -> ChildProcess:
    """A program with the client of this tree, not started yet."""
    program = installation.command([], env, folder / f"{tree.name}-{first}.log")
    program.argv = [program.argv[0], "-c", SUBMIT, str(tree), str(first), str(MANY)]
    return program


def shut_for_a_test(valkey: ValkeyServer) -> None:
    """The pool is shut for two seconds; its provider had asked for many years.

    A worker of either release lets one request test the pool then.
    """
    with valkey.client() as broker:
        seconds, micros = broker.time()
        now_ms = seconds * 1000 + micros // 1000
        fields: dict[str | bytes, bytes | float | int | str] = {
            "until": now_ms + 2000, "why": "limited", "asked": 4_102_444_800_000,
            "probe_at": now_ms + 2000, "shut_at": now_ms,
        }  # fmt: skip
        broker.hset(Keys().gate("openai/gpt-4o-mini", "key0"), mapping=fields)


@pytest.mark.slow
def test_workers_and_producers_of_the_release_before_run_beside_todays(
    before: Path,
    valkey: ValkeyServer,
    database_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "100")
    new = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "10",
        "HEADGATE_SWEEP_S": "1",
    }
    old = new | {"PYTHONPATH": str(before)}
    assert headgate(["db", "upgrade"], new).code == 0
    theirs = installation.worker_process(old, tmp_path, "before")
    ours = installation.worker_process(new, tmp_path, "new")
    programs = [producer(before, old, tmp_path, 0), producer(ROOT, new, tmp_path, MANY)]
    with installation.ended_afterwards(theirs, ours, *programs):
        theirs.start()
        ours.start()
        for program in programs:
            program.start()
        for program in programs:
            assert installation.exit_code(program, 120) == 0, program.log_end()
        ids = [line for program in programs for line in program.log().split()]
        assert len(set(ids)) == 2 * JOBS_OF_EACH
        settings = Settings(redis_url=valkey.url, database_url=database_url, home=tmp_path)
        with Client(settings) as client:
            assert {client.result(one).status for one in ids} == {"succeeded"}
            shut_for_a_test(valkey)
            late = client.submit_many(
                Request(
                    prompt=f"prompt number gate {n}.", model="gpt-4o-mini", params={"max_tokens": 5}
                )
                for n in range(20)
            )
            assert {client.result(one, timeout_s=120).status for one in late} == {"succeeded"}
        # Today's worker goes on alone, also for producers of the release before.
        assert theirs.stop(30) == 0
        alone = producer(before, old, tmp_path, 1000)
        with installation.ended_afterwards(alone):
            alone.start()
            assert installation.exit_code(alone, 120) == 0, alone.log_end()
        with valkey.client() as broker:
            wait_until(lambda: broker.scard("headgate:present") == 0, 30, "all to be forgotten")
        assert ours.stop(30) == 0
    books, bill = installation.read_books(database_url), simulator.stats()
    assert books.attempts["answered"] == bill["answered"]
    assert books.ledger_usd == Decimal(bill["money"]["billed_usd"])
    assert len(rows_by_worker(database_url)) == 2, "both workers ended jobs"
    for worker in (theirs, ours):
        assert "Traceback" not in worker.log(), worker.log_from("Traceback")


def test_usage_is_rolled_up_by_workers_of_both_releases(
    before: Path, database_url: str, tmp_path: Path
) -> None:
    """Days, months and today so far of either release are read and gone on with by the other."""
    env = {"HEADGATE_DATABASE_URL": database_url, "HEADGATE_HOME": str(tmp_path / "home")}
    engine = open_engine(database_url)
    migrate.upgrade(engine)
    rounds_ms = count(START_MS + 3 * DAY_MS + 6 * HOUR_MS, 61_000)  # on the second of March

    def end_jobs(days: Iterable[int], many: int) -> None:
        put(engine, *(
            line(START_MS + day * DAY_MS + n, user_id=f"u{n % 3}", batch_id="b", latency_ms=n)
            for day in days for n in range(many)
        ))  # fmt: skip

    def ours() -> list[Any]:
        async def rounds() -> None:
            now_ms = next(rounds_ms)
            rollup = UsageRollup(engine, lambda: now_ms)
            for at_ms in islice(rounds_ms, 9):
                now_ms = at_ms
                await rollup.round()

        asyncio.run(rounds())
        return [usage(engine, by).as_json() for by in BY]

    def theirs() -> list[Any]:
        first_ms, *_ = islice(rounds_ms, 9)
        words = ["-c", ROLL_UP, str(before), str(first_ms), orjson.dumps(BY).decode()]
        ended = subprocess.run(
            [sys.executable, *words], env=os.environ | env | {"PYTHONPATH": str(before)},
            cwd=tmp_path, capture_output=True, text=True, timeout=60 * BUSY, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return list(orjson.loads(ended.stdout))

    end_jobs(range(4), 20)
    assert ours() == theirs(), "the release before goes on from today's"
    for late in ([3], [1], [0, 2, 3]):
        end_jobs(late, 7)
        assert theirs() == [usage(engine, by).as_json() for by in BY], "today's reads theirs"
        end_jobs(late, 5)
        assert ours() == theirs()
    assert ours()[0]["total"]["requests"] == 4 * 20 + 5 * 12
    engine.dispose()
