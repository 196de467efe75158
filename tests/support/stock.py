"""An installation with one worker, and a stock Celery app that sends tasks to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from celery.result import AsyncResult

from headgate.shared.broker.keys import Keys
from tests.support import installation
from tests.support.celery_nodes import WorkerProcess
from tests.support.servers import Simulator, ValkeyServer, short_folder

QUEUE = "headgate.standard.fast"
NODE = f"one@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Stock:
    """The worker and its servers. `app`: of a stranger, who knows nothing of Headgate."""

    valkey: ValkeyServer
    simulator: Simulator
    worker: WorkerProcess
    env: dict[str, str]
    app: Celery
    client: redis.Redis

    @property
    def keys(self) -> Keys:
        """The names of the keys."""
        return Keys()

    def send(self, prompt: str = "Hello", **options: Any) -> AsyncResult[Any]:
        """Send the task; options of Celery's, and fields of the request that are named so."""
        fields = {name: options.pop(name) for name in FIELDS & options.keys()}
        given = {"args": [{"prompt": prompt, "model": "gpt-4o-mini", **fields}], "queue": QUEUE}
        return self.app.send_task("headgate.run", **{**given, **options})


def state_of(answer: AsyncResult[Any]) -> str:
    """Return the state that Celery has for the task; its stubs do not know all of them."""
    return str(answer.state)


FIELDS = frozenset({"tenant", "deadline_s", "fallback", "cache"})


@contextmanager
def opened(folder: Path, **settings: str) -> Iterator[Stock]:
    """Start the servers and the worker; all have ended afterwards."""
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(stack.enter_context(short_folder())))
        simulator = stack.enter_context(Simulator(folder / "simulator"))
        env = {
            "HEADGATE_HOME": str(folder / "home"),
            "HEADGATE_REDIS_URL": valkey.url,
            "HEADGATE_SIMULATOR_URL": simulator.url,
            **settings,
        }
        worker = installation.worker_process(env, folder, "one")
        stack.enter_context(installation.ended_afterwards(worker))
        worker.start()
        app = stack.enter_context(
            Celery("stranger", broker=valkey.url, backend=valkey.url, set_as_current=False)
        )
        client = stack.enter_context(valkey.client(decode_responses=False))
        yield Stock(valkey, simulator, worker, env, app, client)
