"""HEADGATE_IN_FLIGHT_MB bounds what large prompts take of a worker's memory."""

from __future__ import annotations

from pathlib import Path

import psutil

from headgate import Client
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.memory import resident_mb, watched
from tests.support.servers import Simulator, ValkeyServer

LIMIT_MB, PROMPTS, PROMPT_MB = 24, 24, 4
PROMISED = 2.4
"""Times the limit; docs/deploying.md says so."""
OTHERS_MB = 25
"""What the first large jobs import and open, and a fetch of one prompt more."""


def test_prompts_take_no_more_than_promised_and_give_it_back(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('[models."gpt-4o-mini"]\ncontext_tokens = 20000000\n')
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CATALOG": str(catalog),
        "HEADGATE_IN_FLIGHT_MB": str(LIMIT_MB),
    }
    worker = installation.worker_process(env, tmp_path)
    in_force = Settings(home=tmp_path / "home", redis_url=valkey.url, catalog=catalog)
    with installation.ended_afterwards(worker), Client(in_force) as client:
        worker.start()
        client.submit("warm up", model="gpt-4o-mini").result(timeout_s=60 * BUSY)
        process = psutil.Process(worker.pid)
        process.suspend()  # so that all prompts wait when it goes on
        text = "many words " * (PROMPT_MB * 100_000)
        jobs = [client.submit(f"{n} {text}", model="gpt-4o-mini") for n in range(PROMPTS)]
        with watched(worker.pid) as memory:
            process.resume()
            for job in jobs:
                result = client.result(job.id, wait=True, timeout_s=120 * BUSY)
                assert result.status == "succeeded", result.error
        assert memory.grown_mb < PROMISED * LIMIT_MB + OTHERS_MB
        rest_mb = memory.base_mb + OTHERS_MB
        wait_until(lambda: resident_mb(worker.pid) < rest_mb, 30, "the memory to be given back")
