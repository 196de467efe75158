"""Flower shows the whole stack to those with its login, harms nothing, and tells no secret."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from headgate import Client
from headgate.producer.errors import UnknownJob
from headgate.shared import redis_url
from headgate.shared.settings import Settings
from tests.support import installation, redis_forms
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import BUSY, wait_until
from tests.support.flower import (
    NODE,
    WRONG,
    FlowerServer,
    every_path,
    monitored,
    paths_of,
    python_flower,
    queue_rows,
    wait_for_events,
    wait_for_worker,
)
from tests.support.servers import Simulator, ValkeyServer

MARKS = {
    "prompt": "zebrafinch",  # in every prompt, and so in the simulator's answers
    "key": "okapikey",
    "password": "okapi-redis",
    "login": "okapi-flower",
    "user": "ursoniuser",
    "metadata": "mambametadata",
    "webhook": "heronhook",
}
TENANT = "tapirtenant"
"""It is shown with the model of a job, and in the worker's log."""
LOGGED = ("user",)
"""The log of the worker names these at the end of each job, too."""

SLOW = "[[fault:slow:ms=600000]]"
OPEN = ("/healthcheck", "/static/", "/login", "/logout")


ENDS = {
    "succeeded": ("SUCCESS", "succeeded"),
    "bare": ("SUCCESS", "succeeded"),
    "failed": ("FAILURE", "JobFailed('invalid_request')"),
    "refused": ("FAILURE", "JobFailed('authentication')"),
    "unknown field": ("FAILURE", "JobFailed('invalid_request')"),
    "running": ("REVOKED", "TaskRevokedError('cancelled')"),
    "deferred": ("RETRY", "deferred"),
}
"""State of each job for Celery, and its code or its end in a word."""

MODELS = {"refused": "claude-haiku-4-5", "deferred": "gpt-4.1-mini"}
"""The models of jobs that do not name the usual one."""


@dataclass
class Stack:
    """Everything running: Redis with a password, a worker, and the servers' addresses."""

    env: dict[str, str]
    url: str
    worker: WorkerProcess
    settings: Settings
    valkey: ValkeyServer
    folder: Path


@pytest.fixture
def stack(
    valkey_factory: Callable[..., ValkeyServer],
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[Stack]:
    """A worker at work; Flower is the test's to start."""
    rules = ["on", f">{MARKS['password']}-pw", "~*", "&*", "+@all"]
    valkey = valkey_factory(appendonly=True, extra=["--user", "headgate", *rules])
    url = f"redis://headgate:{MARKS['password']}-pw@127.0.0.1:{valkey.port}/0"
    simulator = simulator_factory("--key", f"sk-{MARKS['key']}-right")
    catalog = tmp_path / "catalog.toml"
    catalog.write_text('[pools."openai/gpt-4o"]\nrpm = 1\n')
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": url,
        "HEADGATE_KEY_PREFIX": "watched:",
        "HEADGATE_CATALOG": str(catalog),
        "HEADGATE_BACKOFF_S": "0.05",
        "HEADGATE_DRAIN_S": "3",
        "HEADGATE_TIMEOUT_S": "600",
        "OPENAI_API_KEY": f"sk-{MARKS['key']}-right",
        "OPENAI_BASE_URL": f"{simulator.url}/v1",
        "ANTHROPIC_API_KEY": f"sk-ant-{MARKS['key']}-wrong",
        "ANTHROPIC_BASE_URL": simulator.url,
    }
    settings = Settings(
        home=tmp_path / "home", redis_url=url, key_prefix="watched:", catalog=catalog
    )
    worker = installation.worker_process(env, tmp_path, "watched", level="DEBUG")
    with installation.ended_afterwards(worker):
        yield Stack(env, url, worker, settings, valkey, tmp_path)


def submit_all(client: Client, url: str) -> dict[str, str]:
    """Jobs that end in every way there is, each with personal words; their ids by name."""
    word = MARKS["prompt"]
    told: Any = {"tenant": TENANT, "user": MARKS["user"]}
    told["metadata"] = {"k": MARKS["metadata"]}

    def submit(prompt: str, model: str = "gpt-4o-mini", **fields: Any) -> str:
        return client.submit(f"{prompt} {word}", model=model, **told, **fields).id

    ids = {
        "running": submit(SLOW),
        "succeeded": submit("well"),
        "failed": submit("[[fault:400]]", fallback=False),
        "refused": submit("the wrong key", "claude-haiku-4-5", fallback=False),
        "first": submit("first of a minute", "gpt-4o", fallback=False),
        "deferred": submit("[[fault:529:retry-after=90]]", "gpt-4.1-mini", fallback=False),
    }
    stranger = Celery("stranger", broker=url, set_as_current=False)
    stranger.conf.broker_transport_options = {"global_keyprefix": "watched:"}
    hook = f"https://{MARKS['webhook']}.example"
    for name, request in {
        "bare": {"prompt": word, "model": "gpt-4o-mini", **told},
        "unknown field": {"prompt": word, "model": "gpt-4o-mini", "hook_url": hook, **told},
    }.items():
        sent = stranger.send_task(
            "headgate.run", args=[request], queue="headgate.standard.fast", ignore_result=True
        )
        ids[name] = str(sent.id)
    for poison in ([word, hook], [{"v": word}], [{"v": 1, "request": {"tenant": told}}]):
        stranger.send_task(
            "headgate.run", args=poison, queue="headgate.standard.fast", ignore_result=True
        )
    stranger.send_task("no.such.task", args=[word], queue="headgate.standard.fast")
    stranger.close()
    at = client.open()
    at.redis.lpush(at.keys.queue("headgate.bulk.fast"), f'{{"{word}": {hook}')
    return ids


def is_on_record(client: Client, job_id: str) -> bool:
    try:
        client.status(job_id)
    except UnknownJob:
        return False
    return True


@pytest.mark.slow
def test_flower_shows_every_job_and_no_secret_anywhere(stack: Stack) -> None:
    flower = FlowerServer(stack.env, stack.folder)
    wire: list[str] = []
    with (
        installation.ended_afterwards(flower),
        Client(stack.settings) as client,
        monitored(stack.url, ("celeryev", "pidbox"), wire),
    ):
        flower.start()
        stack.worker.start()
        wait_for_events(flower, client)
        ids = submit_all(client, stack.url)
        at = client.open()
        wait_until(lambda: at.redis.zcard(at.keys.due()) == 1, 30, "a deferred job")
        wait_until(lambda: at.redis.llen(at.keys.dead()) >= 4, 30, "the dead letters")
        for name in ("succeeded", "failed", "refused", "bare", "unknown field", "first"):
            # A stock message is on record once a worker has it.
            wait_until(partial(is_on_record, client, ids[name]), 30, f"job {name}")
            client.result(ids[name], wait=True, timeout_s=30 * BUSY)
        known = lambda: set(ids.values()) <= set(flower.fetch("/api/tasks"))  # noqa: E731
        wait_until(known, 20, "Flower to know all jobs")
        wait_for_worker(flower)
        all_read = lambda: not at.redis.exists(at.keys.queue("headgate.bulk.fast"))  # noqa: E731
        wait_until(all_read, 20, "the last message to be read")
        wait_until(lambda: at.redis.zcard(at.keys.leases()) == 1, 20, "all others to be let go")

        rows = {row["name"]: row["messages"] for row in queue_rows(flower)}
        assert rows["(held by workers)"] == 1
        assert rows["(deferred)"] == 1
        assert rows["headgate.dead"] == at.redis.llen(at.keys.dead())

        pages = flower.crawl(*paths_of(list(ids.values())))
        client.cancel(ids["running"])
        ended = client.result(ids["running"], wait=True, timeout_s=20 * BUSY)
        assert ended.status == "cancelled"
        client.cancel(ids["deferred"])
        of_it = f"/api/task/info/{ids['running']}"
        wait_until(lambda: flower.fetch(of_it)["state"] == "REVOKED", 20, "Flower to know")
        later = flower.crawl(*paths_of(list(ids.values())))
        assert stack.worker.stop(30) == 0
        flower.stop(20)

    for name, (state, shown) in ENDS.items():
        info = json.loads(later[f"/api/task/info/{ids[name]}"].text)
        assert (info["state"], info["exception"] or info["result"]) == (state, shown), name
        model = MODELS.get(name, "gpt-4o-mini")
        assert info["kwargs"] == repr({"model": model, "tenant": TENANT}), name
    assert TENANT in later[f"/task/{ids['succeeded']}"].text
    for kind in ("task-succeeded", "task-failed", "task-revoked", "task-retried"):
        assert f'type="{kind}"' in later["/metrics"].text
    assert {path for path, page in pages.items() if page.status >= 400} == {
        "/no-such-page",
        *(f"/api/task/result/{job_id}" for job_id in ids.values()),
    }
    assert any("task-succeeded" in words for words in wire)
    assert any("enable_events" in words for words in wire)
    places = {"what Redis sees": "\n".join(wire)}
    places |= {path: page.text for path, page in pages.items()}
    places |= {f"{path} later": page.text for path, page in later.items()}
    assert TENANT not in flower.log()
    logs = [stack.worker.log_path, flower.log_path, stack.valkey.log_path]
    places |= {str(path): path.read_text(errors="replace") for path in logs}
    found = [
        f"{place}: {kind}: {text[max(0, text.find(mark) - 80) : text.find(mark) + 60]}"
        for place, text in places.items()
        for kind, mark in MARKS.items()
        if mark in text and not (kind in LOGGED and place == str(stack.worker.log_path))
    ]
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["rediss", "sentinel", "acl and prefix"])
def test_flower_counts_and_hears_on_every_form_of_a_redis_url(
    form: str, simulator: Simulator, tmp_path: Path
) -> None:
    with redis_forms.opened(form) as server:
        home = tmp_path / "home"
        env = {**server.env, "HEADGATE_HOME": str(home), "HEADGATE_SIMULATOR_URL": simulator.url}
        settings = Settings(
            home=home,
            redis_url=env["HEADGATE_REDIS_URL"],
            key_prefix=env.get("HEADGATE_KEY_PREFIX", ""),
        )
        flower = FlowerServer(env, tmp_path)
        worker = installation.worker_process(env, tmp_path, "watched", level="DEBUG")
        with installation.ended_afterwards(worker, flower), Client(settings) as client:
            flower.start()
            waiting = [client.submit(f"number {n}", model="gpt-4o-mini").id for n in range(3)]
            rows = {row["name"]: row["messages"] for row in queue_rows(flower)}
            assert {name: count for name, count in rows.items() if count} == {
                "headgate.standard.fast": len(waiting)
            }
            assert "headgate.standard.fast" in flower.read("/broker").text
            worker.start()
            wait_for_events(flower, client)
            wait_for_worker(flower)
            pages = flower.crawl("/", "/broker", f"/worker/{NODE}", "/api/workers", "/metrics")
            assert [path for path, page in pages.items() if page.status >= 400] == []
            assert worker.stop(30) == 0
            flower.stop(20)
        texts = [flower.log(), worker.log(), *(page.text for page in pages.values())]
        for secret in redis_url.read(env["HEADGATE_REDIS_URL"]).secrets:
            assert not any(secret in text for text in texts)
        assert "Traceback" not in flower.log(), flower.log_from("Traceback")


def test_nobody_reads_or_does_anything_without_the_login(stack: Stack) -> None:
    with installation.ended_afterwards(flower := FlowerServer(stack.env, stack.folder)):
        flower.start()
        asked = 0
        for path in every_path():
            if path.startswith(OPEN):
                continue
            for method in ("GET", "POST"):
                for login in (None, WRONG, "Bearer x"):
                    status = flower.read(path, method, login).status
                    assert status in (401, 405), (path, method, login, status)
                    asked += status == 401
        assert asked > 60
        flower.stop(20)
    bare = python_flower(stack.env, stack.folder)
    bare.start()
    wait_until(lambda: not bare.running, 20, "a Flower without logins to end")
    assert bare.exit_code() == 2
    assert "FLOWER_BASIC_AUTH" in bare.log()


def test_a_read_only_flower_refuses_what_changes_workers(stack: Stack) -> None:
    with installation.ended_afterwards(flower := FlowerServer(stack.env, stack.folder)):
        flower.start()
        stack.worker.start()
        wait_until(lambda: NODE in flower.fetch("/api/workers?refresh=1"), 30, "the worker")
        statuses = {path: flower.read(path, "POST").status for path in every_path()}
        changing = {path for path, status in statuses.items() if status == 403}
        assert len(changing) >= 14, statuses
        assert f"/api/worker/shutdown/{NODE}" in changing
        refused = {status for path, status in statuses.items() if path.startswith("/api/")}
        assert refused <= {403, 405}, statuses
        assert stack.worker.running
        with Client(stack.settings) as client:
            assert client.submit("still there?", model="gpt-4o-mini").result(timeout_s=20 * BUSY)
        flower.stop(20)


@pytest.mark.slow
def test_a_flower_in_control_cancels_and_stops_and_breaks_nothing(stack: Stack) -> None:
    flower = FlowerServer(stack.env, stack.folder, "--control")
    with installation.ended_afterwards(flower), Client(stack.settings) as client:
        flower.start()
        stack.worker.start()
        wait_until(lambda: NODE in flower.fetch("/api/workers?refresh=1"), 30, "the worker")
        job = client.submit(SLOW, model="gpt-4o-mini")
        active = f"/api/workers?refresh=1&workername={NODE}"
        wait_until(lambda: job.id in flower.read(active).text, 30, "the job to run")
        assert flower.read(f"/api/task/revoke/{job.id}?terminate=true", "POST").status == 200
        assert client.result(job.id, wait=True, timeout_s=30 * BUSY).status == "cancelled"
        for step in ("pool/grow", "pool/shrink", "pool/restart", "pool/autoscale"):
            flower.read(f"/api/worker/{step}/{NODE}?n=3&min=1&max=2", "POST")
        assert client.submit("and now?", model="gpt-4o-mini").result(timeout_s=20 * BUSY)
        assert "Traceback" not in stack.worker.log(), stack.worker.log_from("Traceback")
        assert flower.read(f"/api/worker/shutdown/{NODE}", "POST").status == 200
        wait_until(lambda: not stack.worker.running, 30, "the worker to end")
        assert stack.worker.exit_code() == 0
        flower.stop(20)


@pytest.mark.slow
def test_flower_starts_without_redis_and_works_once_it_is_there(stack: Stack) -> None:
    flower = FlowerServer(stack.env, stack.folder)
    stack.valkey.kill()
    with installation.ended_afterwards(flower):
        flower.start()
        for outage in (1, 2):
            wait_until(lambda: flower.log().count("no events") >= outage, 20, "Flower to say so")  # noqa: B023
            assert "No queue data" in flower.read("/broker").text
            assert flower.read("/api/queues/length").status == 503
            stack.valkey.restart()
            if not stack.worker.running:
                stack.worker.start()
            with Client(stack.settings) as client:
                wait_for_events(flower, client)
            assert queue_rows(flower)
            stack.valkey.kill()
        assert "Traceback" not in flower.log(), flower.log_from("Traceback")
        stack.valkey.restart()
        flower.stop(20)
