"""What earlier releases left behind is read, and finished, by today's code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult
from sqlalchemy import MetaData, insert, select

from headgate import Client
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED, Result
from headgate.shared.settings import Settings
from tests.releases.record import CATALOG
from tests.releases.record import ENDED as ASKED
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

RECORDED = Path(__file__).parent.parent / "releases"
AFTER_MS = 120_000
"""So long after the recording today's code comes: leases have lapsed, deferred jobs are due."""


class Left:
    """The rows and keys of one release, as if they had been left two minutes ago."""

    def __init__(self, folder: Path) -> None:
        keys = (folder / "redis.json").read_text()
        shift_ms = now_ms() - json.loads(keys)["recorded_at_ms"] - AFTER_MS

        def moved(text: str) -> Any:
            return json.loads(
                re.sub(r"\b1[78]\d{11}\b", lambda m: str(int(m.group()) + shift_ms), text)
            )

        self.keys: dict[str, Any] = moved(keys)["keys"]
        self.tables: dict[str, list[dict[str, Any]]] = moved((folder / "record.json").read_text())

    def put_rows(self, url: str, revision: str) -> None:
        """The rows are in tables of their own revision, which are then upgraded."""
        engine = open_engine(url)
        migrate.upgrade(engine)
        migrate.downgrade(engine, revision)
        found = MetaData()
        found.reflect(engine)
        with engine.begin() as connection:
            for name, rows in self.tables.items():
                connection.execute(insert(found.tables[name]), rows)
        migrate.upgrade(engine)
        engine.dispose()

    def put_keys(self, server: ValkeyServer) -> None:
        """The keys are as they were."""
        with server.client() as client:
            for key, left in self.keys.items():
                value = left["value"]
                match left["type"]:
                    case "string":
                        client.set(key, value, ex=3600)
                    case "list":
                        client.rpush(key, *value)
                    case "hash":
                        client.hset(key, mapping=value)
                    case "set":
                        client.sadd(key, *value)
                    case "zset":
                        client.zadd(key, dict(value))

    def jobs(self, *statuses: str) -> list[dict[str, Any]]:
        """The rows of the jobs in these statuses."""
        return [row for row in self.tables["jobs"] if row["status"] in statuses]


@pytest.fixture(params=["0.1"])
def left(request: pytest.FixtureRequest) -> Left:
    return Left(RECORDED / request.param)


@pytest.fixture
def env(
    left: Left, valkey: ValkeyServer, simulator: Simulator, empty_database_url: str, tmp_path: Path
) -> dict[str, str]:
    """Today's installation over what the release left."""
    left.put_rows(empty_database_url, "0001")
    left.put_keys(valkey)
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG)
    return {
        "HEADGATE_CATALOG": str(catalog),
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": empty_database_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_LEASE_S": "10",
        "HEADGATE_SWEEP_S": "1",
    }


@pytest.fixture
def client(env: dict[str, str], tmp_path: Path) -> Iterator[Client]:
    settings = Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=env["HEADGATE_DATABASE_URL"],
        home=tmp_path / "home",
    )  # fmt: skip
    with Client(settings) as opened:
        yield opened


def test_what_a_release_left_is_read_and_finished_by_today_s_code(
    left: Left,
    env: dict[str, str],
    client: Client,
    simulator: Simulator,
    valkey: ValkeyServer,
    tmp_path: Path,
) -> None:
    ended = left.jobs(*ENDED)
    assert len(ended) >= 10
    app = Celery(broker=valkey.url, backend=valkey.url)
    for row in ended:
        assert client.result(row["id"]) == Result.from_json(json.loads(row["result"]))
        state = {"succeeded": "SUCCESS", "cancelled": "REVOKED"}.get(row["status"], "FAILURE")
        assert AsyncResult(row["id"], app=app).state == state
    app.close()

    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        again = client.submit(**ASKED[1])
        assert again.result(timeout_s=90).cached == "exact"
        unfinished = left.jobs("queued", "running", "deferred")
        assert {row["status"] for row in unfinished} == {"queued", "running", "deferred"}
        for row in unfinished:
            result = client.result(row["id"], wait=True, timeout_s=180)
            assert result.status == "succeeded", (row["id"], result)
        with valkey.client() as broker:
            wait_until(lambda: not broker.exists("headgate:present", "headgate:leases"), 20)
            assert not broker.exists("headgate:due", "headgate:owners", "headgate:messages")
        assert worker.stop(20) == 0
    assert simulator.stats()["requests"] == len(unfinished)
    assert states_of(env, [row["id"] for row in left.jobs("running")]) == ["answered", "unknown"]
    letters = headgate(["dead", "list", "--json"], env)
    assert "headers is not an object" in letters.out
    assert headgate(["batch", "list"], env).code == 0
    assert headgate(["db", "check"], env).code == 0
    assert "Traceback" not in worker.log(), worker.log_from("Traceback")


def states_of(env: dict[str, str], ids: list[str]) -> list[str]:
    """The states of the attempts of these jobs, each named once."""
    engine = open_engine(env["HEADGATE_DATABASE_URL"])
    with reading(engine) as connection:
        query = select(attempts.c.state).where(attempts.c.job_id.in_(ids)).distinct()
        found = sorted(connection.scalars(query))
    engine.dispose()
    return found
