"""The examples of the docs run as they stand, on one installation with a simulated provider."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from headgate import Client
from headgate.shared.settings import Settings
from tests import ROOT
from tests.support.browser import Browser, Page, browser_program
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.gateway import House, house
from tests.support.installation import ended_afterwards
from tests.support.proxy import TcpProxy
from tests.support.servers import Simulator, ValkeyServer, free_port, short_folder

EXAMPLES = ROOT / "docs" / "examples"

STREAM_MS = 3000
"""How long the provider streams an answer, so that a test can cut it in the middle."""


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for all examples."""
    folder = tmp_path_factory.mktemp("examples")
    flags = ["--latency-ms", str(STREAM_MS), "--latency-sigma", "0", "--output-tokens", "200"]
    with ExitStack() as stack:
        valkey = stack.enter_context(ValkeyServer(stack.enter_context(short_folder())))
        simulator = stack.enter_context(Simulator(folder / "simulator", flags))
        database = f"sqlite:///{folder / 'headgate.db'}"
        yield stack.enter_context(house(valkey, database, simulator, folder))


@pytest.fixture(scope="module")
def client(at: House) -> Iterator[Client]:
    env = at.env
    settings = Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=env["HEADGATE_DATABASE_URL"],
        home=Path(env["HEADGATE_HOME"]),
    )  # fmt: skip
    with Client(settings) as opened:
        yield opened


class WebApp(ChildProcess):
    """An example that serves, on a port of its own."""

    forks = True

    def __init__(self, at: House, folder: Path, *words: str) -> None:
        """Prepare it; a word PORT stands for its port."""
        self.port = free_port()
        argv = [sys.executable, *(word.replace("PORT", str(self.port)) for word in words)]
        super().__init__(argv, env=at.env, log_path=folder / "web-app.log", cwd=EXAMPLES)

    def ready(self) -> bool:
        """Whether it answers, whatever it says."""
        try:
            ask(self.port, "/none")
        except OSError:
            return False
        return True


def ask(port: int, path: str, body: object = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60 * BUSY) as reply:  # noqa: S310
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
        return error.code, json.loads(text) if text.startswith(b"{") else None


def run(at: House, *argv: str, **env: str) -> str:
    """Run a program in the folder of the examples; return what it printed."""
    done = subprocess.run(
        argv, cwd=EXAMPLES, env={**at.env, "PATH": "/usr/bin:/bin:/usr/local/bin", **env},
        capture_output=True, text=True, timeout=120 * BUSY, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_flask_answers_now_or_later(at: House, tmp_path: Path) -> None:
    app = WebApp(at, tmp_path, "-m", "flask", "--app", "flask_answers", "run", "--port", "PORT")
    with ended_afterwards(app):
        app.start()
        status, first = ask(app.port, "/questions", {"question": "[[fault:slow:ms=6000]] Why?"})
        assert status == 202
        wait_until(lambda: ask(app.port, f"/questions/{first['id']}")[0] == 200, 60, "the answer")
        assert ask(app.port, f"/questions/{first['id']}")[1]["answer"]
        assert ask(app.port, "/questions/nobody")[0] == 404
        assert ask(app.port, "/questions", {"question": ""})[0] == 422


@pytest.mark.slow
def test_django_sorts_reviews_and_streams(at: House, tmp_path: Path) -> None:
    app = WebApp(at, tmp_path, "django_reviews.py", "runserver", "--noreload", "PORT")
    with ended_afterwards(app):
        app.start()
        status, found = ask(app.port, "/reviews", {"reviews": ["Lovely.", "[[fault:400]]"]})
        assert status == 200
        assert set(found["reviews"][0]) == {"mood", "summary"}
        assert found["reviews"][1] is None
        events = sse(app.port, "/stories?topic=tides")
        assert len("".join(json.loads(data) for _, _, data in events)) > 100


@pytest.mark.slow
def test_a_celery_app_asks_models_without_our_code(at: House, tmp_path: Path) -> None:
    env = {**at.env, "PYTHONPATH": f"{EXAMPLES}:{ROOT}"}
    argv = [sys.executable, "-m", "celery", "-A", "celery_orders", "worker", "-l", "INFO"]
    argv += ["--queues", "orders", "-c", "1", "-n", "orders@%h"]
    worker = WorkerProcess(argv, log_path=tmp_path / "orders.log", env=env, cwd=EXAMPLES)
    with ended_afterwards(worker):
        worker.start()
        script = "from celery_orders import summarise; print(summarise(7).get(timeout=120))"
        said = run(at, sys.executable, "-c", script, PYTHONPATH=f"{EXAMPLES}:{ROOT}")
    assert said.startswith("order 7, for 0.")


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(at: House) -> None:
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    program = tuple(code)
    said = run(at, sys.executable, "-c", _NOTEBOOK, json.dumps(program))
    assert "3 submitted, 3 ended" in said


_NOTEBOOK = """
import ast, asyncio, inspect, json, sys

async def main():
    names = {}
    for cell in json.loads(sys.argv[1]):
        code = compile(cell, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        made = eval(code, names)
        if inspect.isawaitable(made):
            await made

asyncio.run(main())
"""
"""Runs the cells as a notebook does, in one event loop."""


@pytest.mark.slow
def test_node_reads_an_answer_through_broken_connections(
    at: House, client: Client, tcp_proxy: Callable[[int], TcpProxy]
) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed, so the example for Node did not run")
    proxy = tcp_proxy(at.gateway.port)
    argv = [node, "node_stories.mjs", "Node: a story about tides."]
    env = {"HEADGATE_URL": f"http://127.0.0.1:{proxy.port}"}
    with subprocess.Popen(argv, cwd=EXAMPLES, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        read = process.stdout.read(20)
        proxy.cut()
        read += process.stdout.read(40)
        proxy.cut()
        read += process.stdout.read()
        assert process.wait(60 * BUSY) == 0
    job = client.jobs(limit=1)[0]
    assert read.decode() == f"{client.result(job.id).content}\n"
    assert proxy.accepted >= 3


@pytest.mark.slow
def test_curl_submits_and_waits(at: House) -> None:
    said = run(at, "sh", "curl_jobs.sh", HEADGATE_URL=at.gateway.url)
    assert json.loads(said)["status"] == "succeeded"


@pytest.fixture
def stories(at: House, tmp_path: Path) -> Iterator[WebApp]:
    """The FastAPI example serves."""
    words = ("-m", "uvicorn", "fastapi_stories:app", "--port", "PORT", "--log-level", "warning")
    app = WebApp(at, tmp_path, *words)
    with ended_afterwards(app):
        app.start()
        yield app


def sse(port: int, path: str, after: str = "", most: int | None = None) -> list[tuple[str, ...]]:
    """Return id, name and data of the events; break the connection after so many."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60 * BUSY)
    connection.request("GET", path, headers={"last-event-id": after} if after else {})
    found: list[tuple[str, ...]] = []
    fields = {"id": "", "event": "message", "data": ""}
    for line in connection.getresponse():
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name in fields:
            fields[name] = value
        elif not name and fields["data"]:
            found.append(tuple(fields.values()))
            fields = {"id": "", "event": "message", "data": ""}
        if len(found) == most:
            break
    connection.close()
    return found


@pytest.mark.slow
def test_fastapi_goes_on_behind_the_last_event(stories: WebApp, client: Client) -> None:
    status, begun = ask(stories.port, "/stories", {"topic": "the sea"})
    assert status == 202
    path, after, text = f"/stories/{begun['id']}/events", "", ""
    for most in (3, 4, None):
        events = sse(stories.port, path, after, most)
        text += "".join(json.loads(data) for _, _, data in events)
        after = next((place for place, _, _ in reversed(events) if place), after)
    assert events[-1][1] == "end"
    assert text == client.result(begun["id"]).content
    [(_, name, words)] = sse(stories.port, "/stories/nobody/events")
    assert (name, "no job" in words) == ("failed", True)
    assert ask(stories.port, "/stories", {"topic": 5})[0] == 422


@pytest.mark.slow
async def test_a_browser_reads_each_word_once_through_broken_connections(
    stories: WebApp, client: Client, tcp_proxy: Callable[[int], TcpProxy], tmp_path: Path
) -> None:
    program = browser_program()
    if program is None:
        pytest.skip("neither Chromium nor Chrome is installed: no browser has read the page")
    proxy = tcp_proxy(stories.port)
    async with Browser(program, tmp_path / "profile") as browser:
        page = await browser.open(f"http://127.0.0.1:{proxy.port}/?topic=mountains")
        for characters in (20, 200):
            await until(page, f"document.getElementById('story').textContent.length > {characters}")
            proxy.cut()
        await until(page, "document.title.startsWith('done')")
        title = await page.value("document.title")
        text = await page.value("document.getElementById('story').textContent")
    result = await asyncio.to_thread(client.result, title.removeprefix("done "))
    assert text == result.content
    assert proxy.accepted >= 3, "the page, and the events again after each cut"


async def until(page: Page, script: str) -> None:
    """Wait until the expression is true in the page."""
    async with asyncio.timeout(60 * BUSY):
        while not await page.value(script):
            pass
