"""A job ends at its deadline wherever it waits: also where no worker ever meets it."""

from pathlib import Path

from headgate import Client
from headgate.shared.broker.keys import Keys
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer


def test_jobs_past_their_deadline_expire_in_queues_that_nobody_serves_and_deep_in_a_line(
    valkey: ValkeyServer, simulator: Simulator, tmp_path: Path
) -> None:
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_SWEEP_S": "1",
    }
    worker = installation.worker_process(env, tmp_path, "one", "-Q", "headgate.standard.fast")
    in_force = Settings(home=tmp_path / "home", redis_url=valkey.url)
    with installation.ended_afterwards(worker), Client(in_force) as client:
        assert headgate(["pause", "tenant", "acme"], env).code == 0
        worker.start()
        unserved = client.submit("Hello", model="gpt-4o", deadline_s=2)
        first = client.submit("first in line", tenant="acme", deadline_s=600)
        deep = [client.submit(f"line {n}", tenant="acme", deadline_s=2) for n in range(3)]
        for job in (unserved, *deep):
            result = client.result(job.id, timeout_s=30 * BUSY)
            assert (result.status, result.attempts) == ("expired", 0)
        with valkey.client() as redis:
            wait_until(lambda: not redis.exists(Keys().owners()), 10, "nothing to be held")
            assert redis.sismember(Keys().present(), first.id)
            assert not any(redis.smismember(Keys().present(), [job.id for job in deep]))
        assert headgate(["resume", "tenant", "acme"], env).code == 0
        assert first.result(timeout_s=20 * BUSY).status == "succeeded"
        assert simulator.stats()["requests"] == 1
        books = installation.read_books(installation.database_url(env))
        assert books.jobs == {"expired": 4, "succeeded": 1}
        assert books.audit_lines == 5
        wait_until(lambda: "have expired" in worker.log(), 20, "the log to say so")
        assert worker.stop(20) == 0
