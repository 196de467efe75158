"""Records what a release leaves behind: `python -m tests.releases.record FOLDER`, in its own tree.

Runs the release's worker, producer and commands for a while, kills the worker in the middle of its
work, and writes down all rows and all keys as they are then.
"""

import json
import sqlite3
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from headgate import Client
from headgate.shared import settings
from tests.support import installation
from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

ENDED: list[dict[str, Any]] = [
    {"prompt": "a plain prompt", "metadata": {"n": 1, "nul": "\0", "word": "ü \U0001f600"}},
    {"prompt": "a plain prompt"},  # from the cache
    {"messages": [{"role": "user", "content": "Hello"}], "model": "claude-haiku-4-5", "user": "u"},
    {"input": ["one text", "two texts"], "model": "text-embedding-3-small", "tenant": "acme"},
    {"prompt": "[[fault:400]] refused"},
    {"prompt": "[[fault:500:model=gpt-4o-mini]] another model", "params": {"max_tokens": 5}},
    {"prompt": "JSON", "params": {"response_format": {"type": "json_object"}}},
]
DEFERRED: dict[str, Any] = {"prompt": "to be put off", "fallback": False}
RUNNING: list[Any] = [{"prompt": f"under way {n}", "priority": "interactive"} for n in range(3)]
CATALOG = """
[pools."openai/gpt-4o-mini"]
rpm = 6000
tpm = 6000000
"""
QUEUED: list[Any] = [{"prompt": f"in the queue {n}", "priority": "bulk"} for n in range(3)]


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of the record, by table."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        names = ("jobs", "attempts", "audit", "batches")
        return {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]  # noqa: S608 (our own names)
            for name in names
        }


def keys(client: "redis.Redis") -> Iterator[tuple[str, Any]]:
    """All keys with their type and value; wake tokens and Celery's own bookkeeping left out."""
    read: dict[str, Any] = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "hash": client.hgetall,
        "set": lambda key: sorted(client.smembers(key)),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True, score_cast_func=int),
    }
    for key in sorted(client.scan_iter(count=1000)):
        kind = str(client.type(key))
        if key.startswith(("headgate", "celery-task-meta")):
            yield key, {"type": kind, "value": read[kind](key)}


def main(target: Path) -> None:
    """`record.json` and `redis.json` are in the folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ValkeyServer(folder / "valkey") as valkey, Simulator(folder / "sim") as simulator:
            catalog = folder / "catalog.toml"
            catalog.write_text(CATALOG)
            env = {
                "HEADGATE_CATALOG": str(catalog),
                "HEADGATE_HOME": str(folder / "home"),
                "HEADGATE_REDIS_URL": valkey.url,
                "HEADGATE_DATABASE_URL": f"sqlite:///{folder / 'headgate.db'}",
                "HEADGATE_SIMULATOR_URL": simulator.url,
                "HEADGATE_CONCURRENCY": "3",
                "HEADGATE_CACHE_TTL_S": "100000",
            }
            live(env, folder, valkey, simulator)
            target.mkdir(parents=True, exist_ok=True)
            with valkey.client() as client:
                left = {"recorded_at_ms": time.time_ns() // 1_000_000, "keys": dict(keys(client))}
            for file, content in (
                ("record.json", rows(folder / "headgate.db")),
                ("redis.json", left),
            ):
                text = json.dumps(content, indent=1, ensure_ascii=True)
                (target / file).write_text(text + "\n")


def live(env: dict[str, str], folder: Path, valkey: ValkeyServer, simulator: Simulator) -> None:
    """The release has worked, and its worker was killed with jobs in every state."""
    chosen = settings.Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=env["HEADGATE_DATABASE_URL"],
        home=folder / "home",
    )  # fmt: skip
    worker = installation.worker_process(env, folder)
    with Client(chosen) as client, valkey.client() as broker, installation.ended_afterwards(worker):
        client.open()
        worker.start()
        for request in ENDED:
            client.result(client.submit(**request).id, wait=True, timeout_s=60)
        batch = installation.write_prompts(folder / "batch.jsonl", 3)
        assert headgate(["batch", "run", batch, "-o", folder / "out.jsonl"], env).code == 0
        broker.lpush("headgate.standard.fast", '{"hg":"no-job"}')
        wait_until(lambda: broker.llen("headgate.dead"), 10, "the dead letter")
        post_fault(simulator, "to be put off", "429:retry-after=60")
        later = client.submit(**DEFERRED)
        wait_until(lambda: client.status(later.id) == "deferred", 10, "the deferred job")
        simulator.freeze()
        running = client.submit_many(RUNNING)
        wait_until(lambda: {client.status(one) for one in running} == {"running"}, 10, "the slots")
        wait_until(
            lambda: installation.read_books(env["HEADGATE_DATABASE_URL"]).attempts.get("open") == 3
        )
        client.cancel(client.submit("given up in the queue", model="gpt-4o").id)
        client.submit_many(QUEUED)
        worker.kill()
        simulator.thaw()


def post_fault(simulator: Simulator, match: str, fault: str) -> None:
    """The next request with these words meets the fault."""
    body = json.dumps([{"match": match, "fault": fault, "times": 1}]).encode()
    request = urllib.request.Request(f"{simulator.url}/_script", body, method="POST")  # noqa: S310 (loopback)
    urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 (loopback)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
