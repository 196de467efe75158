"""Workers forked from a process that has imported all of it: a start takes tenths of a second.

`python -m tests.nursery` is that process. Each line on its standard input is an order as JSON, and
each is answered by a line: `{"argv", "env", "log"}` by the pid of a new worker, `{"pid"}` by the
exit code of one, null while it runs. All workers end with it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from typing import Any, Self

from tests.celery_nodes import WorkerProcess
from tests.child import die_with_parent, lasting_pids, wait_until

IMPORTED = (
    "celery.bin.worker", "celery.fixups.django", "workers.app", "workers.tasks",
    "workers.providers.openai", "workers.providers.anthropic", "kombu.transport.redis",
    "celery.backends.redis", "producer.submit", "sqlalchemy.dialects.sqlite", "psycopg",
    "openai.resources.chat", "anthropic.resources.messages", "shared.migrate",
)  # fmt: skip


class Nursery:
    """The process that workers are forked from."""

    def __init__(self) -> None:
        argv = [sys.executable, "-m", "tests.nursery"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            argv, stdin=pipe, stdout=pipe, text=True, preexec_fn=die_with_parent
        )
        lasting_pids.add(self._process.pid)

    def tell(self, **order: Any) -> Any:
        """The answer to an order."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """It has ended, and so have all its workers."""
        self._process.kill()
        self._process.communicate()
        lasting_pids.discard(self._process.pid)


class Forked:
    """What of `subprocess.Popen` the tests use, for a worker of a nursery."""

    def __init__(self, nursery: Nursery, order: dict[str, Any]) -> None:
        self._nursery = nursery
        self._code: int | None = None
        self.pid: int = nursery.tell(**order)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = self._nursery.tell(pid=self.pid)
        return self._code

    def wait(self, timeout: float = 60) -> int:
        """The exit code, once it has ended."""
        try:
            wait_until(lambda: self.poll() is not None, timeout, f"{self.pid} to end")
        except TimeoutError as error:
            raise subprocess.TimeoutExpired(str(self.pid), timeout) from error
        return self._code or 0

    def send_signal(self, number: int) -> None:
        """The signal has been sent, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL has been sent."""
        self.send_signal(9)


class ForkedWorker(WorkerProcess):
    """A worker of a nursery; in all else as one with an interpreter of its own."""

    nursery: Nursery

    def of(self, nursery: Nursery) -> Self:
        """The same, to be forked from this nursery."""
        self.nursery = nursery
        return self

    def _spawn(self) -> Any:
        order = {"argv": self.argv[2:], "env": self.env, "log": str(self.log_path)}
        return Forked(self.nursery, order)


def _run(argv: list[str], env: dict[str, str], log: str) -> int:
    die_with_parent()
    os.environ.update(env)
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from celery.__main__ import main

    sys.argv = argv
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _serve() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        if "pid" in order:
            pid, status = os.waitpid(order["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                try:
                    code = _run(**order)
                except BaseException:
                    traceback.print_exc()
                    code = 1
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
