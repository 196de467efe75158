"""Malformed messages on a job queue, against the whole worker: dead letters, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from producer import Client
from shared.keys import Keys
from shared.settings import Settings
from tests.child import wait_until
from tests.integration.headgate import headgate
from tests.integration.rig_poison import DEAD, HARMLESS
from tests.servers import Simulator, ValkeyServer
from tests.system import rig

QUEUE = "headgate.standard.fast"


def test_malformed_messages_end_as_dead_letters_and_the_next_job_runs(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    env = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
    }
    keys = Keys()
    worker = rig.worker_process(env, tmp_path)
    with (
        rig.ended_afterwards(worker),
        Client(Settings(home=home, redis_url=valkey.url)) as client,
        valkey.client(decode_responses=False) as broker,
    ):
        dead: Callable[[], Any] = lambda: broker.llen(keys.dead())  # noqa: E731
        worker.start()
        for n, (name, raw) in enumerate(DEAD.items(), start=1):
            broker.lpush(QUEUE, raw)
            broker.lpush(keys.wake(QUEUE), "1")
            job = client.submit(f"after {name}")
            assert job.result(timeout_s=20).status == "succeeded", name
            wait_until(lambda: dead() == n, 10, f"{name} to be a dead letter")  # noqa: B023
        for name, raw in HARMLESS.items():
            broker.lpush(QUEUE, raw)
            assert client.submit(f"after {name}").result(timeout_s=20).status == "succeeded", name
        assert dead() == len(DEAD)
        assert worker.running
        assert "Traceback" not in worker.log()

        listed = _listed(env)
        assert len({letter["id"] for letter in listed}) == len(DEAD)
        assert {letter["queue"] for letter in listed} == {QUEUE}
        assert all(letter["reason"] for letter in listed)
        assert [letter["bytes"] for letter in reversed(listed)] == [*map(len, DEAD.values())]

        again = listed[-1]["id"]  # the first: no JSON at all
        assert headgate(["dead", "retry", again], env).code == 0
        wait_until(lambda: _listed(env)[0]["bytes"] == len(DEAD["not JSON"]), 10, "its return")
        assert again not in {letter["id"] for letter in _listed(env)}
        dropped = listed[3]["id"]
        assert headgate(["dead", "drop", dropped], env).code == 0
        assert dead() == len(DEAD) - 1
        assert headgate(["dead", "drop", dropped], env).code == 2
        assert headgate(["dead", "drop", "--all"], env).code == 0
        assert _listed(env) == []
        assert client.submit("the last").result(timeout_s=20).status == "succeeded"
        assert worker.stop(20) == 0


def _listed(env: dict[str, str]) -> list[dict[str, Any]]:
    ended = headgate(["dead", "list", "--json"], env)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]
