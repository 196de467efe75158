"""A Flower as a process, read as a browser, a script and a stranger would; and what Redis sees."""

import base64
import json
import re
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis
from flower.urls import handlers

from headgate import Client
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.command import PROGRAM
from tests.support.servers import free_port

NODE = f"watched@{socket.gethostname()}"
PASSWORD = "okapi-flower-0123456789"  # noqa: S105 (of this test alone)
LOGIN = f"monitor:{PASSWORD}"
BASIC = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
WRONG = f"Basic {base64.b64encode(b'monitor:guessed').decode()}"


class Page(NamedTuple):
    """What Flower answered."""

    status: int
    text: str


class FlowerServer(ChildProcess):
    """`headgate flower` on a loopback port."""

    def __init__(self, env: Mapping[str, str], folder: Path, *flags: str) -> None:
        """Prepare a Flower that logs all it can to `flower.log`."""
        self.port = free_port()
        super().__init__(
            [*PROGRAM, "flower", "--port", str(self.port), *flags],
            log_path=folder / "flower.log",
            env={**env, "FLOWER_BASIC_AUTH": LOGIN, "HEADGATE_LOG_LEVEL": "DEBUG"},
        )

    def ready(self) -> bool:
        """Whether it answers at all."""
        try:
            return self.read("/healthcheck", login=None).status == 200
        except OSError:
            return False

    def read(self, path: str, method: str = "GET", login: str | None = BASIC) -> Page:
        """One page or one reply of the API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=b"" if method == "POST" else None,
            headers={"Authorization": login} if login else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=20 * BUSY) as reply:  # noqa: S310 (loopback)
                return Page(reply.status, reply.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Page(error.code, error.read().decode())

    def fetch(self, path: str) -> Any:
        """What the API answers, decoded; raises AssertionError unless the status is 200."""
        page = self.read(path)
        assert page.status == 200, page
        return json.loads(page.text)

    def crawl(self, *paths: str) -> dict[str, Page]:
        """The pages at these paths, and all pages that links lead to from there."""
        found: dict[str, Page] = {}
        waiting = [*paths]
        while waiting:
            path = waiting.pop()
            if path in found or path.startswith("/static/"):
                continue
            found[path] = page = self.read(path)
            links = re.findall(r"""(?:href|src|action)=["'](/[^"'#]*)""", page.text)
            waiting += [link.replace("&amp;", "&") for link in links]
        return found


@contextmanager
def monitored(url: str, kinds: tuple[str, ...], seen: list[str]) -> Iterator[None]:
    """Every command with one of `kinds` in it is kept in `seen`, with the bodies decoded.

    Raises what ended the reading before its time.
    """
    client = redis.Redis.from_url(url, decode_responses=True, socket_timeout=None)
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]

        def listen() -> None:
            for command in monitor.listen():
                words = str(command["command"])
                if "the-test-has-ended" in words:
                    return
                if any(kind in words for kind in kinds):
                    seen.append(_decoded(words))

        with ThreadPoolExecutor(1) as thread:
            listening = thread.submit(listen)
            try:
                yield
            finally:
                client.echo("the-test-has-ended")
            listening.result(10 * BUSY)
    client.close()


def _decoded(words: str) -> str:
    bodies = re.findall(r'\\?"body\\?": ?\\?"([A-Za-z0-9+/=]+)', words)
    plain = [base64.b64decode(body).decode("utf-8", "replace") for body in bodies]
    return " ".join([words, *plain])


def python_flower(env: Mapping[str, str], folder: Path) -> ChildProcess:
    """The module that `headgate flower` becomes, started without any login."""
    argv = [sys.executable, "-m", "headgate.workers.flower", "--port", str(free_port())]
    return ChildProcess(argv, log_path=folder / "bare.log", env=env)


def paths_of(job_ids: list[str]) -> list[str]:
    """What Flower has, and no link leads to."""
    columns = "&".join(
        f"columns[{n}][data]={name}" for n, name in enumerate(["name", "uuid", "state"])
    )
    table = (
        f"draw=1&start=0&length=99&search[value]=&order[0][column]=0&order[0][dir]=asc&{columns}"
    )
    return [
        *("/", "/workers", "/workers?json=1&refresh=1", "/tasks", f"/tasks/datatable?{table}"),
        *("/broker", "/metrics", "/healthcheck", f"/worker/{NODE}", "/no-such-page"),
        *("/api/workers?refresh=1", f"/api/workers?refresh=1&workername={NODE}"),
        *("/api/workers?status=1", "/api/tasks", "/api/task/types", "/api/queues/length"),
        *(f"/task/{job_id}" for job_id in job_ids),
        *(f"/api/task/info/{job_id}" for job_id in job_ids),
        *(f"/api/task/result/{job_id}" for job_id in job_ids),
    ]


def wait_for_events(flower: FlowerServer, client: Client) -> None:
    """Flower is told of jobs: it asks workers for that, every few seconds."""

    def told() -> bool:
        job = client.submit("a first one", model="gpt-4o-mini", cache={"mode": "off"})
        assert job.result(timeout_s=20 * BUSY)
        return flower.read(f"/api/task/info/{job.id}").status == 200

    wait_until(told, 30, "Flower to be told of jobs")


def wait_for_worker(flower: FlowerServer) -> None:
    """Flower knows what the worker is; it gives a worker one second to say so."""
    known = lambda: "stats" in flower.fetch("/api/workers?refresh=1").get(NODE, {})  # noqa: E731
    wait_until(known, 30, "Flower to know the worker")


def queue_rows(flower: FlowerServer) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = flower.fetch("/api/queues/length")["active_queues"]
    return rows


def every_path() -> list[str]:
    """One path for each rule of Flower's own, the last excepted, which is the page of no page."""
    rules = [getattr(rule, "regex", None) or rule[0] for rule in handlers[:-1]]
    patterns = [str(getattr(rule, "pattern", rule)).rstrip("$").rstrip("?") for rule in rules]
    return [
        pattern.replace("(.+)", NODE if "worker" in pattern else "headgate.run").replace(
            "(.*)", "some"
        )
        for pattern in patterns
    ]
