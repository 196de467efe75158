"""Jobs of stock Celery producers, whose callers nobody has asked for: the worker finds the tier."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import insert

from headgate.shared.broker.keys import Keys
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine
from headgate.shared.database.tables import callers
from tests.support import installation
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import wait_until
from tests.support.rig import Broker, stock_message
from tests.support.servers import Simulator, ValkeyServer

OWN = """
[tiers.slow]
rpm = 1
[tiers.other]
rpm = 1000
[tenants.listed]
tier = "slow"
"""
FUNCTION = "def tier_of(tenant, user):\n    return 'slow' if user == 'u1' else None\n"

Start = Callable[[str], WorkerProcess]


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client(decode_responses=False) as client:
        yield client


@pytest.fixture
def start(
    valkey: ValkeyServer, simulator: Simulator, sqlite_url: str, tmp_path: Path
) -> Iterator[Start]:
    (tmp_path / "own.toml").write_text(OWN)
    (tmp_path / "house_tiers.py").write_text(FUNCTION)
    engine = open_engine(sqlite_url)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        row = {"tenant": "acme", "user_id": "u1", "tier": "slow"}
        connection.execute(insert(callers), [row])
    engine.dispose()
    started: list[WorkerProcess] = []

    def start(source: str) -> WorkerProcess:
        env = {
            "HEADGATE_HOME": str(tmp_path / "home"),
            "HEADGATE_REDIS_URL": valkey.url,
            "HEADGATE_DATABASE_URL": sqlite_url,
            "HEADGATE_SIMULATOR_URL": simulator.url,
            "HEADGATE_CATALOG": str(tmp_path / "own.toml"),
            "HEADGATE_TIERS": source,
            "PYTHONPATH": str(tmp_path),
        }
        started.append(installation.worker_process(env, tmp_path))
        return started[0].start()

    yield start
    for worker in started:
        worker.kill()


def send(client: redis.Redis, *ids: str, **fields: Any) -> None:
    for job_id in ids:
        message = stock_message(job_id, [[{"prompt": job_id, **fields}], {}, {}])
        Broker(client).push(json.dumps(message))


def waits(client: redis.Redis) -> set[str]:
    """Jobs that wait in a queue, and that no worker has."""
    broker = Broker(client)
    return broker.present() - set(broker.leased())


def buckets(client: redis.Redis) -> list[bytes]:
    """Return the keys of the buckets of tiers."""
    found: Any = client.keys("headgate:bucket:tier/*")
    return list(found)


@pytest.mark.parametrize(
    ("source", "caller"),
    [
        ("catalog", {"tenant": "listed"}),
        ("table", {"tenant": "acme", "user": "u1"}),
        ("house_tiers:tier_of", {"tenant": "acme", "user": "u1"}),
        ("no_such_module:tier_of", {"tenant": "listed"}),
        ("table", {"tenant": "stranger", "tier": "slow"}),
        ("catalog", {"tenant": "listed", "on_limit": "refuse"}),
    ],
)
def test_a_stock_job_is_limited_by_the_tier_of_its_caller(
    client: redis.Redis, start: Start, source: str, caller: dict[str, str]
) -> None:
    worker = start(source)
    send(client, "one", "two", **caller)
    send(client, "free", tenant="nobody")
    wait_until(lambda: len(waits(client)) == len(Broker(client).present()) == 1, 20, "one to wait")
    assert waits(client) < {"one", "two"}
    [bucket] = buckets(client)
    assert bucket.startswith(Keys().bucket("tier/slow/").encode().rstrip(b"#"))
    assert "Traceback" not in worker.log(), worker.log_from("Traceback")


def test_a_tier_that_a_request_names_goes_before_that_of_its_caller_and_must_be_known(
    client: redis.Redis, start: Start
) -> None:
    start("catalog")
    send(client, "one", "two", tenant="listed", tier="other")
    send(client, "odd", tenant="listed", tier="no|such")
    results = [Keys().result(job_id) for job_id in ("one", "two", "odd")]
    wait_until(lambda: client.exists(*results) == 3, 20, "all to end")
    found: Any = client.get(results[2])
    assert b"no such tier" in found
    assert [name for name in buckets(client) if b"/slow/" in name] == []
