"""Answers that are read while they are made, through real workers, and what a crash does to one."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headgate import Client, StreamBroken
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

LATENCY_MS = 4000  # the first event after a quarter of it, the last at its end


@pytest.fixture
def simulator(simulator_factory: Callable[..., Simulator]) -> Simulator:
    return simulator_factory("--latency-ms", str(LATENCY_MS), "--latency-sigma", "0")


@pytest.fixture
def env(valkey: ValkeyServer, simulator: Simulator, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_LEASE_S": "4",
    }


@pytest.fixture
def client(env: dict[str, str]) -> Iterator[Client]:
    settings = Settings(home=Path(env["HEADGATE_HOME"]), redis_url=env["HEADGATE_REDIS_URL"])
    with Client(settings) as opened:
        yield opened


def test_an_answer_streams_as_it_comes_and_a_cached_one_is_replayed(
    env: dict[str, str], client: Client, simulator: Simulator, tmp_path: Path
) -> None:
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        for calls, model in enumerate(("gpt-4o-mini", "claude-haiku-4-5"), 1):
            job = client.submit("Tell me of the sea", model=model, stream=True)
            pieces, came_at = [], []
            for piece in client.stream(job.id, timeout_s=60):
                pieces.append(piece)
                came_at.append(time.monotonic())
            result = job.result(timeout_s=10)
            assert "".join(pieces) == result.content
            assert len(pieces) > 5
            assert came_at[-1] - came_at[0] > LATENCY_MS / 1000 / 4
            assert result.usage.output_tokens > 0
            assert result.cost_usd is not None
            assert simulator.stats()["requests"] == calls

            again = client.submit("Tell me of the sea", model=model, stream=True)
            replayed = list(client.stream(again.id, timeout_s=60))
            assert "".join(replayed) == result.content
            assert len(replayed) > 1
            # "shared": the end was on record before Redis knew of it
            assert again.result(timeout_s=10).cached in ("exact", "shared")
            assert simulator.stats()["requests"] == calls

        asked = ["submit", "--stream", "Tell me of the sea", "--model", model]
        printed = headgate(asked, env)
        assert (printed.code, printed.out) == (0, f"{result.content}\n")
        broken = headgate(["submit", "--stream", "Tell me [[fault:cut-body]]"], env)
        assert broken.code == 1
        assert broken.out.strip()  # some of it had come
        assert "the answer broke off" in broken.err
        assert worker.stop(20) == 0


def test_a_long_answer_may_take_longer_than_its_time_limit_and_is_paid_once(
    env: dict[str, str], client: Client, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    """The first byte comes after 2.5 s, the last after 10 s, and the time limit is 8 s."""
    slow = simulator_factory("--latency-ms", "10000", "--latency-sigma", "0")
    limits = {"HEADGATE_SIMULATOR_URL": slow.url, "HEADGATE_TIMEOUT_S": "8"}
    worker = installation.worker_process(env | limits, tmp_path)
    with installation.ended_afterwards(worker):
        worker.start()
        models = ("claude-haiku-4-5", "gpt-4.1-mini")  # of 64,000 and 32,768 tokens
        sent = [
            client.submit("Tell me of the sea", model=model, fallback=False) for model in models
        ]
        results = [job.result(timeout_s=60) for job in sent]
        at = client.open()
        assert not any(at.redis.exists(at.keys.deltas(job.id)) for job in sent)
        assert worker.stop(20) == 0
    assert [result.attempts for result in results] == [1, 1]
    assert slow.stats()["requests"] == 2
    for result in results:
        assert result.latency_ms is not None
        assert result.latency_ms > 9000
        assert result.content
        assert result.usage.output_tokens > 0
        assert result.cost_usd is not None


def test_a_worker_killed_in_mid_stream_makes_void_what_was_read_and_another_begins_anew(
    env: dict[str, str], client: Client, tmp_path: Path
) -> None:
    first, second = (installation.worker_process(env, tmp_path, name) for name in ("one", "two"))
    with installation.ended_afterwards(first, second):
        first.start()
        job = client.submit("Tell me of the sea", stream=True)
        pieces = client.stream(job.id, timeout_s=60)
        assert next(pieces)
        first.kill()
        second.start()
        with pytest.raises(StreamBroken):
            list(pieces)
        whole = "".join(client.stream(job.id, timeout_s=60))
        result = job.result(timeout_s=20)
        assert whole == result.content
        assert result.attempts == 2
        books = installation.read_books(installation.database_url(env))
        assert books.attempts == {"unknown": 1, "answered": 1}
        assert second.stop(20) == 0
