"""What is asked, and with which key, is nobody's business: not the logs', not the monitors'."""

import base64
import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery import Celery

from headgate import Client
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.servers import Simulator, ValkeyServer, free_port

WORD = "zebrafinch"  # in every prompt, and so in the simulator's answers
RIGHT_KEY = "sk-ant-okapikey-0123456789abcdef"
WRONG_KEY = "sk-proj-okapikey-fedcba9876543210"
MARKS = (WORD, "okapikey", RIGHT_KEY[-12:], WRONG_KEY[-12:])
LOGIN = "monitor:monitor"
NODE = f"leaky@{socket.gethostname()}"


@contextmanager
def events_of(url: str, seen: list[dict[str, Any]]) -> Iterator[None]:
    """All of Celery's events are kept in `seen`, as a monitor gets them."""
    app = Celery("monitor", broker=url, backend=url, set_as_current=False)
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})

        def listen() -> None:
            # Without a pause: what comes between two captures is heard by nobody.
            receiver.capture(limit=None, timeout=None, wakeup=False)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            receiver.should_stop = True
            thread.join(10)
    app.close()


def inspected(url: str, job_id: str) -> str:
    """All that `celery inspect` gives."""
    app = Celery("inspector", broker=url, backend=url, set_as_current=False)
    look = app.control.inspect(destination=[NODE], timeout=10 * BUSY)
    found: list[Any] = [look.active(), look.reserved(), look.scheduled(), look.stats(), look.conf()]
    found += [look.revoked(), look.report(), look.query_task(job_id), look.registered()]
    app.close()
    assert job_id in json.dumps(found[0])
    return json.dumps(found, default=str)


def send(app: Celery, name: str = "headgate.run", **arguments: Any) -> str:
    """The id of a job that a stock producer has sent, words and all."""
    queue = "headgate.standard.fast"
    return str(app.send_task(name, queue=queue, ignore_result=True, **arguments).id)


def read(url: str) -> str:
    """A page of Flower."""
    login = base64.b64encode(LOGIN.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})  # noqa: S310 (loopback)
    try:
        with urllib.request.urlopen(request, timeout=10 * BUSY) as reply:  # noqa: S310 (loopback)
            return str(reply.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{url}: {error.code} {error.read().decode()}") from None


def test_no_prompt_or_key_reaches_logs_events_or_inspect(
    valkey: ValkeyServer, simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    simulator = simulator_factory("--key", RIGHT_KEY)
    home = tmp_path / "home"
    env = {
        "HEADGATE_HOME": str(home),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_BACKOFF_S": "0.05",
        "HEADGATE_LOG_FORMAT": "json",
        "HEADGATE_BREAKER_FAILURES": "0",  # each job ends by its own tries
        "OPENAI_API_KEY": WRONG_KEY,
        "OPENAI_BASE_URL": f"{simulator.url}/v1",
        "ANTHROPIC_API_KEY": RIGHT_KEY,
        "ANTHROPIC_BASE_URL": simulator.url,
    }
    port = free_port()
    argv = [sys.executable, "-m", "celery", "-A", "headgate.workers.app", "flower"]
    flower = ChildProcess(
        [*argv, "--address=127.0.0.1", f"--port={port}", "--logging=debug"],
        log_path=tmp_path / "flower.log",
        env={**env, "FLOWER_BASIC_AUTH": LOGIN},
    )
    worker = installation.worker_process(env, tmp_path, "leaky", "-E", level="DEBUG")
    settings = Settings(home=home, redis_url=valkey.url)
    stranger = Celery("stranger", broker=valkey.url, set_as_current=False)
    events: list[dict[str, Any]] = []
    pages: dict[str, str] = {}
    with (
        installation.ended_afterwards(worker, flower),
        events_of(valkey.url, events),
        Client(settings) as client,
    ):
        flower.start()
        worker.start()
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: _knows(f"{base}/api/workers?refresh=1"), 30, "Flower to know the worker")
        # A heartbeat comes every two seconds: from then on nothing is missed.
        wait_until(lambda: _online(f"{base}/api/workers?status=1"), 30, "Flower to hear events")
        wait_until(lambda: events, 30, "the monitor to hear events")

        def submit(prompt: str, model: str, **fields: Any) -> str:
            return client.submit(f"{prompt} {WORD}", model=model, **fields).id

        haiku = "claude-haiku-4-5"
        ids = [
            submit("well", haiku),
            submit("refused", haiku, fallback=False, params={"stop": [WORD]}),
            submit("[[fault:400]]", haiku),
            submit("[[fault:once:500]]", haiku),
            submit("[[fault:once:garbage]]", haiku),
            submit("[[fault:cut]]", haiku, fallback=False),
            submit("wrong key", "gpt-4o-mini", fallback=False),
        ]
        bare = {"prompt": f"stock {WORD}", "model": haiku}
        ids += [send(stranger, args=[bare]), send(stranger, kwargs=bare)]
        messages = [{"role": WORD, "content": "x"}]
        send(stranger, args=[{"v": WORD}])
        send(stranger, args=[{"v": 1, "request": {"messages": messages}}])
        send(stranger, "no.such.task", args=[WORD])
        at = client.open()
        wait_until(lambda: at.redis.llen(at.keys.dead()) == 3, 30, "three dead letters")

        slow = submit("[[fault:slow:ms=8000]]", haiku)
        wait_until(lambda: client.status(slow) == "running", 30, "a job that can be looked at")
        inspections = inspected(valkey.url, slow)
        wait_until(lambda: slow in read(f"{base}/api/tasks"), 20, "Flower to hear of it")
        pages["/api/tasks"] = read(f"{base}/api/tasks")
        for job_id in [*ids, slow]:
            client.result(job_id, wait=True, timeout_s=30 * BUSY)
        assert client.result(ids[6]).error is not None
        wait_until(lambda: _ended(events) >= {slow, *ids}, 20, "all events")
        wait_until(lambda: ids[0] in read(f"{base}/api/tasks?state=SUCCESS"), 20, "Flower to know")
        for path in ("/", "/workers", "/tasks", "/broker", "/metrics", f"/worker/{NODE}",
                     "/api/queues/length", "/api/tasks", "/api/workers?refresh=1",
                     f"/api/task/info/{ids[0]}", *(f"/task/{job_id}" for job_id in [slow, *ids]),
                     ):  # fmt: skip
            pages[path] = read(f"{base}{path}")
        assert worker.stop(30) == 0
        flower.stop(20)
    stranger.close()

    lines = [json.loads(line) for line in worker.log().splitlines() if '"job ended"' in line]
    assert sorted(line["job_id"] for line in lines) == sorted([slow, *ids]), "one line each"
    assert {line["level"] for line in lines if line["code"]} == {"WARNING"}
    assert {line["level"] for line in lines if not line["code"]} == {"INFO"}
    assert simulator.stats()["refusals"]["authentication"] == 1
    places = {"events": json.dumps(events, default=str), "inspect": inspections, **pages}
    logs = [worker.log_path, flower.log_path, *home.rglob("*.log")]
    places |= {str(path): path.read_text(errors="replace") for path in logs}
    found = {
        place: [
            text[max(0, spot - 99) : spot + 80] for mark in MARKS if (spot := text.find(mark)) >= 0
        ]
        for place, text in places.items()
    }
    assert {place: excerpts for place, excerpts in found.items() if excerpts} == {}


def _knows(url: str) -> bool:
    """Flower has been told what the worker is; it gives a worker one second to say so."""
    try:
        return "stats" in json.loads(read(url)).get(NODE, {})
    except OSError:
        return False


def _online(url: str) -> bool:
    """Flower has heard an event of the worker."""
    return bool(json.loads(read(url)).get(NODE))


def _ended(events: list[dict[str, Any]]) -> set[str]:
    ends = ("task-succeeded", "task-failed")
    return {event["uuid"] for event in events if event["type"] in ends}
