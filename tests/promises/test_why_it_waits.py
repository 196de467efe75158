"""Nobody waits without a word: commands, `health`, the log and the end of a job tell why."""

from pathlib import Path

from headgate import Client
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.servers import ValkeyServer

NOWHERE = "http://127.0.0.1:1/v1"
MODEL = "gpt-4o-mini"
UNSERVED = "headgate.bulk.fast"


def test_an_address_where_nothing_listens_and_a_queue_that_nobody_serves_are_told(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_BREAKER_FAILURES": "2",
        "HEADGATE_BREAKER_OPEN_S": "300",
        "HEADGATE_BACKOFF_S": "0.1",
        "OPENAI_API_KEY": "sk-none",
        "OPENAI_BASE_URL": NOWHERE,
    }
    worker = installation.worker_process(env, tmp_path, "one", "-Q", "headgate.standard.fast")
    words = ["submit", "Hello", "--model", MODEL, "--wait"]
    asking = installation.command(words, env, tmp_path / "submit.log")
    prompts = installation.write_prompts(tmp_path / "in", 3)
    words = ["batch", "run", str(prompts), "-o", str(tmp_path / "out"), "--priority", "bulk"]
    running = installation.command(words, env, tmp_path / "batch.log")
    in_force = Settings(home=tmp_path / "home", redis_url=valkey.url)
    with installation.ended_afterwards(worker, asking, running), Client(in_force) as client:
        worker.start()
        late = client.submit("Hello?", model=MODEL, fallback=False, deadline_s=45)
        asking.start()
        down = f"waiting for openai/{MODEL}, which is down (last fault: connection: "
        wait_until(lambda: down in asking.log(), 30, "the command to say why it waits")
        assert "`headgate resume model gpt-4o-mini` asks it at once" in asking.log()

        bulk = client.submit("Hello", model=MODEL, priority="bulk")
        running.start()
        named = "and no worker serves it"
        wait_until(lambda: named in worker.log(), 10, "the log to name the queue")
        health = headgate(["health", "--json"], env)
        assert health.code == 1
        assert health.document["queues_without_worker"].keys() == {UNSERVED}
        assert named in " ".join(health.document["down"])
        waits = f"waiting for a worker that serves {UNSERVED} (the workers that run serve other"
        wait_until(lambda: waits in running.log(), 20, "the batch to say what it waits for")
        [model] = [one for one in health.document["models"] if one["model"].endswith(MODEL)]
        assert model["fault"].startswith("connection: ")
        found = client.result(bulk.id).waiting_for
        assert found is not None
        assert (found.kind, found.name) == ("no_worker", UNSERVED)

        ended = client.result(late.id, timeout_s=60 * BUSY)
        assert ended.error is not None
        assert (ended.status, ended.error.code) == ("expired", "deadline")
        assert f"its last attempt, at {MODEL}, failed with connection: " in ended.error.message
        assert ended.error.attempts[0].code == "connection"
