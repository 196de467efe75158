"""A Redis with little memory under many jobs: nothing stops, and every result can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.result import AsyncResult

from headgate import Client, SubmitInterrupted, Unreachable
from headgate.shared.broker.keys import Keys
from headgate.shared.settings import Settings
from headgate.workers.celery.config import RESULT_BACKEND
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.outages import Scene, said, scene
from tests.support.servers import Simulator, ValkeyServer

KEYS = Keys()
MB = 1024 * 1024
ROOM_MB, JOBS = 6, 1_600


@pytest.fixture
def long_answers(simulator_factory: Callable[..., Simulator]) -> Simulator:
    """Answers of 12 kB: those of all jobs take three times the room."""
    return simulator_factory("--output-tokens", "3000", "--output-sigma", "0.01")


@pytest.fixture
def server(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    server = valkey_factory()
    with server.client() as client:
        client.config_set("maxmemory", f"{ROOM_MB}mb")
    return server


def write_prompts(path: Path, count: int) -> None:
    with path.open("w") as file:
        for n in range(count):
            line = {"custom_id": f"id-{n + 1}", "prompt": f"prompt {n:06d}", "model": "gpt-4o-mini"}
            file.write(json.dumps(line) + "\n")


def memory(client: redis.Redis, name: str) -> int:
    facts: Any = client.info("memory")
    return int(facts[name])


def ids_of(out: Path) -> list[str]:
    return [line["headgate"]["job_id"] for line in installation.lines_of(out)]


def finish_batch(here: Scene, within_s: float = 300) -> None:
    batch = here.batch()
    with installation.ended_afterwards(batch):
        batch.start()
        assert installation.exit_code(batch, within_s) == 0, batch.log_end()


@pytest.mark.slow
def test_a_small_redis_under_many_jobs_stops_nothing_and_every_result_is_readable(
    server: ValkeyServer,
    long_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADGATE_DATABASE_URL", sqlite_url)
    write_prompts(tmp_path / "in.jsonl", JOBS)
    with (
        scene(tmp_path, long_answers, server.url, sqlite_url, count=JOBS) as here,
        server.client() as client,
    ):
        finish_batch(here)
        installation.each_is_answered_once(here.out, JOBS)
        assert long_answers.stats()["prompts"]["repeats"] == 0
        ids = ids_of(here.out)
        with Client(Settings(**here.settings)) as library:
            results = [library.result(job_id) for job_id in ids]
            assert sum(len(result.content or "") for result in results) > 2.5 * ROOM_MB * MB
            app = Celery(backend=f"{RESULT_BACKEND}+{server.url}", set_as_current=False)
            for place in (0, JOBS // 2, -1):
                answer: AsyncResult[Any] = AsyncResult(ids[place], app=app)
                assert answer.get(timeout=30)["content"] == results[place].content
            backend: Any = app.backend
            backend.record.close()
            app.close()
            shown = headgate(["result", ids[0], "--json"], here.env)
            assert shown.document["content"] == results[0].content
            library.submit("one more").result(timeout_s=60)
        assert int(client.hget(KEYS.results_counts(), "bytes") or 0) <= ROOM_MB * MB // 4
        assert memory(client, "used_memory_peak") < 1.25 * ROOM_MB * MB
        words = f"results take at most {ROOM_MB / 4:.1f} MB of it"
        wait_until(lambda: said(here.workers[0], words), 20, "the log to say so")


@pytest.mark.slow
def test_jobs_go_on_in_a_redis_that_another_program_has_filled(
    server: ValkeyServer,
    simulator_factory: Callable[..., Simulator],
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    simulator = simulator_factory("--latency-ms", "200")
    with (
        scene(tmp_path, simulator, server.url, sqlite_url, count=300, concurrency=20) as here,
        server.client() as client,
        Client(Settings(**here.settings)) as library,
    ):
        ids = library.submit_many(f"prompt {n}" for n in range(300))
        client.config_set("maxmemory", "0")
        client.setrange("another program", 20 * MB, "x")
        client.config_set("maxmemory", int(0.95 * memory(client, "used_memory")))
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("more", "x")
        with pytest.raises(Unreachable) as refused:
            library.submit("no room")
        assert "it is full" in str(refused.value)
        assert not isinstance(refused.value, SubmitInterrupted)
        results = [library.result(job_id, wait=True, timeout_s=120) for job_id in ids]
        assert {result.status for result in results} == {"succeeded"}
        wait_until(lambda: client.scard(KEYS.present()) == 0, 60, "all to be acknowledged")
        assert len(library.jobs(limit=1_000)) == 300
        health = headgate(["health", "--json"], here.env)
        assert health.code == 1
        assert "keys of other programs" in health.document["down"][0]
        wait_until(
            lambda: bool(said(here.workers[0], "Redis is nearly full, at")), 90, "the log to say so"
        )
        client.delete("another program")
        library.submit("room again").result(timeout_s=60)
        assert headgate(["health"], here.env).code == 0
    installation.the_books_agree(sqlite_url, simulator, 301, 0)
