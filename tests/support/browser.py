"""A real browser without a screen, where Chromium is found: a page is opened, and looked at.

With FETCH_BROWSER=1, as `.ci/run` sets it, root on Debian installs it from Debian's packages first.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.support.child import ChildProcess

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

FETCHES = os.environ.get("FETCH_BROWSER") == "1"
FETCH_S = 90


def browser_program() -> str | None:
    """The path of Chromium or Chrome; None if there is neither, and none can be fetched."""
    if (found := _installed()) is None and FETCHES and shutil.which("apt-get"):
        with suppress(OSError, subprocess.SubprocessError):
            _apt_get("update")
            _apt_get("install", "-y", "--no-install-recommends", "chromium")
        found = _installed()
    return found


def _installed() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def _apt_get(*words: str) -> None:
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", "-qq", *words]
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=FETCH_S)


class Browser(ChildProcess):
    """Chromium with a profile of its own. Use it as an async context manager."""

    forks = True

    def __init__(self, program: str, folder: Path) -> None:
        """Prepare a browser with its files in `folder`."""
        self._port_file = folder / "DevToolsActivePort"
        argv = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        argv += ["--disable-dev-shm-usage", "--disable-background-networking"]
        argv += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        super().__init__(argv, log_path=folder.with_suffix(".log"))
        self._session: aiohttp.ClientSession | None = None

    def ready(self) -> bool:
        """Whether it has written where it listens."""
        return self._port_file.exists() and self._port_file.read_text().count("\n") >= 1

    async def __aenter__(self) -> Self:
        self.start(60)
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        self.kill()

    async def open(self, url: str) -> Page:
        """Open a page."""
        assert self._session is not None
        address = f"http://127.0.0.1:{self._port_file.read_text().splitlines()[0]}/json/new"
        async with self._session.put(f"{address}?{url}") as reply:
            target = await reply.json()
        return Page(await self._session.ws_connect(target["webSocketDebuggerUrl"]))


class Page:
    """An open page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._number = 0

    async def value(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        self._number += 1
        asked = {"expression": script, "returnByValue": True}
        await self._socket.send_str(
            json.dumps({"id": self._number, "method": "Runtime.evaluate", "params": asked})
        )
        while (reply := await self._socket.receive_json()).get("id") != self._number:
            pass
        return reply["result"]["result"].get("value")
