"""A user's Celery app with a stock prefork worker, beside a worker of Headgate, on one broker.

The app is the one of docs/celery.md, with the tasks of its workflow. pytest-celery drives both
workers as its nodes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pytest_celery import CeleryTestWorker, CeleryWorkerCluster

from tests import ROOT
from tests.docs.blocks import Block, blocks_of
from tests.support import installation
from tests.support.celery_nodes import LocalWorker, WorkerProcess
from tests.support.child import ChildProcess

OURS, STOCK = 0, 1
"""Places of the workers in the cluster."""


def _blocks() -> list[Block]:
    return [b for b in blocks_of(ROOT / "docs" / "celery.md") if b.language == "python"]


def environment(folder: Path, redis_url: str) -> dict[str, str]:
    """The environment of the user's programs: their app is in the folder."""
    path = os.pathsep.join((str(folder), str(ROOT)))
    return {"HEADGATE_REDIS_URL": redis_url, "PYTHONPATH": path}


@contextmanager
def pair(env: Mapping[str, str], folder: Path) -> Iterator[CeleryWorkerCluster]:
    """Both workers, ready to take tasks. `env`: of the worker of Headgate."""
    [app] = [block for block in _blocks() if block.file == "workflow.py"]
    (folder / "workflow.py").write_text(app.text, encoding="utf-8")
    ours = installation.worker_process(env, folder, "headgate")
    argv = [sys.executable, "-m", "celery", "-A", "workflow", "worker", "-l", "INFO", "-c", "2"]
    stock = WorkerProcess(
        [*argv, "-n", "stock@%h"],
        log_path=folder / "worker-stock.log",
        cwd=folder,
        env=environment(folder, env["HEADGATE_REDIS_URL"]),
    )
    with ExitStack() as stack:
        nodes = []
        for name, child in (("headgate", ours), ("stock", stock)):
            stack.callback(child.kill)
            child.start()
            container: Any = LocalWorker(child, name)
            nodes.append(CeleryTestWorker(container, app=None))
        yield CeleryWorkerCluster(*nodes)


def workflow_program(folder: Path, redis_url: str) -> ChildProcess:
    """The program that starts the workflow of the docs and prints its end, not started yet."""
    [program] = [block for block in _blocks() if "import summarise" in block.text]
    return ChildProcess(
        [sys.executable, "-c", program.text],
        log_path=folder / "program.log",
        env=environment(folder, redis_url),
        cwd=folder,
    )
