"""A provider that sends too much, or never ends: the job ends, and the worker keeps its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headgate import Client
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.memory import watched
from tests.support.servers import Simulator, ValkeyServer

MB = 1024 * 1024
RESPONSE_MB = 16
LONG_S = 120 * BUSY

PLAIN: dict[str, Any] = {"params": {"max_tokens": 100}}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("bomb:mb=200", PLAIN),
    ("bomb:mb=200", {"stream": True}),
    ("endless", PLAIN),
    ("endless", {}),
    ("endless", {"stream": True}),
    ("endless-line", {"stream": True}),
]
"""Faults of the simulator, asked whole, as a stream of ours, and as a stream for the caller."""


@contextmanager
def installed(
    valkey: ValkeyServer, simulator: Simulator, folder: Path, **settings: object
) -> Iterator[tuple[Client, int, str]]:
    """A client, the process of a worker that has answered before, and the database."""
    env = {
        "HEADGATE_HOME": str(folder / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_RESPONSE_MB": str(RESPONSE_MB),
        "HEADGATE_IN_FLIGHT_MB": "16",
        **{name: str(value) for name, value in settings.items()},
    }
    worker = installation.worker_process(env, folder)
    in_force = Settings(home=folder / "home", redis_url=valkey.url)
    with installation.ended_afterwards(worker), Client(in_force) as client:
        worker.start()
        for model in ("gpt-4o-mini", "gpt-4.1-mini"):
            client.submit("warm up", model=model).result(timeout_s=LONG_S)
        yield client, worker.pid, installation.database_url(env)


def test_an_answer_without_end_is_cut_and_takes_little_memory(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path
) -> None:
    with installed(valkey, simulator, tmp_path) as (client, pid, database_url):
        with watched(pid) as memory:
            for fault, fields in CASES:
                job = client.submit(f"[[fault:{fault}]]", model="gpt-4.1-mini", **fields)
                result = client.result(job.id, wait=True, timeout_s=LONG_S)
                assert result.error is not None, (fault, fields)
                assert (result.status, result.error.code) == ("failed", "response_too_large")
                assert f"is larger than {RESPONSE_MB} MB" in result.error.message
                assert (result.attempts, result.fallback) == (1, False)
        assert memory.grown_mb < 150
        assert simulator.stats()["requests"] == 2 + len(CASES)
        wait_until(lambda: simulator.stats()["open_now"] == 0, 30, "the calls to be closed")
        books = installation.read_books(database_url)
        assert books.attempts == {"answered": 2, "unknown": len(CASES)}


def test_a_large_error_body_is_told_by_its_status_and_a_drip_ends_in_time(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path
) -> None:
    settings = {"HEADGATE_TIMEOUT_S": 5, "HEADGATE_MAX_ATTEMPTS_PER_JOB": 1}
    with (
        installed(valkey, simulator, tmp_path, **settings) as (client, pid, _),
        watched(pid) as memory,
    ):
        large = client.submit("[[fault:401:mb=500]]", model="gpt-4o-mini", fallback=False)
        drips = [
            client.submit("[[fault:drip:ms=100]]", model="gpt-4o-mini", fallback=False, **fields)
            for fields in (PLAIN, {"stream": True, "params": {"max_tokens": 99}})
        ]
        error = client.result(large.id, wait=True, timeout_s=LONG_S).error
        assert error is not None
        assert error.code == "authentication"
        for job in drips:
            error = client.result(job.id, wait=True, timeout_s=LONG_S).error
            assert error is not None
            assert error.code == "timeout"
            assert "no answer within 5 s" in error.message
    assert memory.grown_mb < 150


def test_many_large_answers_at_once_take_bounded_memory_and_all_arrive(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path
) -> None:
    """Sixteen of 12 MB at once took 900 MB before answers were counted."""
    with installed(valkey, simulator, tmp_path) as (client, pid, _):
        with watched(pid) as memory:
            prompts = [f"[[fault:large:mb=12]] {n}" for n in range(16)]
            jobs = [client.submit(p, model="gpt-4o-mini", cache={"mode": "off"}) for p in prompts]
            for job in jobs:
                result = client.result(job.id, wait=True, timeout_s=LONG_S)
                assert (result.status, result.attempts) == ("succeeded", 1), result.error
                assert len(result.content or "") == 12 * MB
        assert memory.grown_mb < 400
