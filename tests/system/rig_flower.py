"""A Flower as a process, read as a browser, a script and a stranger would; and what Redis sees."""

import base64
import json
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from tests.child import ChildProcess
from tests.integration.headgate import PROGRAM
from tests.servers import free_port

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
            with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310 (loopback)
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
    """Every command with one of `kinds` in it is kept in `seen`, with the bodies decoded."""
    client = redis.Redis.from_url(url, decode_responses=True)
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]

        def listen() -> None:
            try:
                for command in monitor.listen():
                    words = str(command["command"])
                    if "the-test-has-ended" in words:
                        return
                    if any(kind in words for kind in kinds):
                        seen.append(_decoded(words))
            except (redis.RedisError, OSError, ValueError):
                return

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            client.echo("the-test-has-ended")
            thread.join(10)
    client.close()


def _decoded(words: str) -> str:
    bodies = re.findall(r'\\?"body\\?": ?\\?"([A-Za-z0-9+/=]+)', words)
    plain = [base64.b64decode(body).decode("utf-8", "replace") for body in bodies]
    return " ".join([words, *plain])


def python_flower(env: Mapping[str, str], folder: Path) -> ChildProcess:
    """The module that `headgate flower` becomes, started without any login."""
    argv = [sys.executable, "-m", "workers.flower", "--port", str(free_port())]
    return ChildProcess(argv, log_path=folder / "bare.log", env=env)
