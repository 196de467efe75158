"""Python programs forked from a process that has imported all of Headgate already.

A start takes hundredths of a second instead of up to two seconds of CPU. The program is what a new
interpreter would run: its own process, streams, folder, environment and exit; only what it would
import, and read of our own files, is there before. `/proc` shows it with the command line and the
environment of the nursery.

`python -m tests.support.nursery FD` is that process. Each order comes over the socket FD: its
length in four bytes, together with the streams of the program to start, and JSON:
`{"argv", "env", "cwd"}` is answered by a pid, `{"pid"}` by the exit code of one, null while it
runs. Where no session of pytest has opened a nursery (benches, soak), and elsewhere than on Linux,
nothing is forked.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import runpy
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests import ROOT
from tests.support.child import die_with_parent, lasting_pids, nursery_pids

IMPORTED = (
    "celery.bin.celery", "celery.bin.worker", "celery.apps.worker", "celery.fixups.django",
    "celery.loaders.app", "celery.worker.strategy", "celery.events.dispatcher", "kombu.pidbox",
    "kombu.transport.redis", "celery.backends.redis", "billiard.pool", "uvloop",
    "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql", "psycopg", "rich.progress",
    "rich.table", "rich.live", "alembic.command", "genai_prices.data", "genai_prices.data_snapshot",
    "encodings.idna", "encodings.utf_8_sig",
)  # fmt: skip
"""What programs import late: when a command needs it, or Celery's plugins ask for it."""
PACKAGES = ("headgate.shared", "headgate.producer", "headgate.workers")
LEFT_OUT = ("__main__", "headgate.workers.flower")
"""Parts of names: what runs when imported, and what brings a server of its own along."""
READ_LATE = re.compile("^(_?HEADGATE|OPENAI|ANTHROPIC|CRASH|FLOWER|COMP)_|_KEY$")
"""Variables that no module reads while it is imported; Celery does so with some of its own."""
SEARCHED = "PYTHONPATH"


class Nursery:
    """The process that programs are forked from."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        argv = [sys.executable, "-m", "tests.support.nursery", str(theirs.fileno())]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            preexec_fn=die_with_parent,
        )
        theirs.close()
        self._turn = threading.Lock()
        lasting_pids.add(self._process.pid)
        nursery_pids.add(self._process.pid)

    def tell(self, order: Mapping[str, Any], streams: Sequence[int] = ()) -> Any:
        """The answer to an order."""
        with self._turn:
            _write(self._socket, order, streams)
            return _read(self._socket)[0]

    def close(self) -> None:
        """It has ended, and so have all its programs."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        lasting_pids.discard(self._process.pid)
        nursery_pids.discard(self._process.pid)


class Forked:
    """What of `subprocess.Popen` the tests use, for a program of a nursery."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self._code: int | None = None
        self.pid = pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self._code is None:
            self._code = self._nursery.tell({"pid": self.pid})
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            fd = os.pidfd_open(self.pid)
            try:
                if not select.select([fd], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            finally:
                os.close(fd)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """The signal has been sent, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL has been sent."""
        self.send_signal(9)


_open: list[Nursery | None] = []


@contextmanager
def opened() -> Iterator[None]:
    """While it is open, the first program that may be forked starts the nursery."""
    _open.append(None)
    try:
        yield
    finally:
        if nursery := _open.pop():
            nursery.close()


def fork(
    argv: Sequence[str], env: Mapping[str, str], cwd: str | None, streams: Sequence[int]
) -> Forked | None:
    """The Python program of this command line runs; None where it needs its own interpreter.

    `env` is laid over the environment of the tests; `streams`: its input, output and errors.
    """
    if sys.platform != "linux" or not _open or not all(_is_late(*one) for one in env.items()):
        return None
    if argv[0] != sys.executable or argv[1] not in ("-m", "-c") or _is_of_others(argv):
        return None
    nursery = _open[-1]
    if nursery is None:
        if threading.current_thread() is not threading.main_thread():
            return None  # the kernel would end the nursery together with this thread
        nursery = _open[-1] = Nursery()
    order = {"argv": argv[1:], "env": {**os.environ, **env}, "cwd": cwd or os.getcwd()}  # noqa: PTH109
    return Forked(nursery, nursery.tell(order, streams))


def _is_of_others(argv: Sequence[str]) -> bool:
    """Return whether this is a worker of another application of Celery's.

    Such an application must not have our transport and pool, which are imported here.
    """
    return argv[2] == "celery" and not any(word.startswith("headgate.") for word in argv)


def _is_late(name: str, value: str) -> bool:
    """Return whether a variable still has its effect after the imports.

    A folder on the path has, unless there is another Headgate in it, which is imported already.
    """
    if name == SEARCHED:
        folders = [Path(folder) for folder in value.split(os.pathsep)]
        return all(folder == ROOT or not (folder / "headgate").exists() for folder in folders)
    return READ_LATE.search(name) is not None


# The process itself.


def _serve(orders: socket.socket) -> dict[str, Any]:
    """The order that this process, forked just now, has to carry out."""
    while True:
        order: dict[str, Any]
        order, streams = _read(orders)
        if "pid" in order:
            pid, status = os.waitpid(order["pid"], os.WNOHANG)
            _write(orders, os.waitstatus_to_exitcode(status) if pid else None)
            continue
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            orders.close()
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            for place, fd in enumerate(streams):
                os.dup2(fd, place)
                os.close(fd)
            return order
        for fd in streams:
            os.close(fd)
        _write(orders, pid)


def _become(order: dict[str, Any]) -> None:
    """The program has run to its end, and this process with it."""
    inherited = os.environ.get(SEARCHED, "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    searched = os.environ.get(SEARCHED, "").split(os.pathsep)
    if searched != inherited:
        rest = [folder for folder in sys.path[1:] if folder not in inherited]
        sys.path[1:] = [*filter(None, searched), *rest]
    random.seed()
    flag, name, *words = order["argv"]
    try:
        if flag == "-m":
            sys.argv = [name, *words]
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            sys.argv = ["-c", *words]
            exec(compile(name, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 (a test's own)
        code: object = None
    except SystemExit as exit_:
        code = exit_.code
    _leave(code)


def _leave(code: object) -> NoReturn:
    """End as an interpreter does, but free no memory object by object.

    To count down all that was imported before the fork would copy each of its pages: 0.14 s.
    """
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    status = 0 if code is None else int(code) & 0xFF
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream and not stream.closed:
                stream.flush()
        except OSError:  # nobody reads any more
            status = 120
    os._exit(status)


def _read(sender: socket.socket) -> tuple[Any, list[int]]:
    head, streams, _, _ = socket.recv_fds(sender, 4, 3)
    if not head:
        sys.exit()  # whoever had orders is gone
    left, parts = int.from_bytes(head), []
    while left:
        part = sender.recv(left)
        parts.append(part)
        left -= len(part)
    return json.loads(b"".join(parts)), streams


def _write(receiver: socket.socket, document: Any, streams: Sequence[int] = ()) -> None:
    raw = json.dumps(document).encode()
    socket.send_fds(receiver, [len(raw).to_bytes(4)], list(streams))
    receiver.sendall(raw)


def _import_all() -> None:
    gc.disable()
    for name in IMPORTED:
        importlib.import_module(name)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        for module in pkgutil.walk_packages(path, f"{package}."):
            if not any(part in module.name for part in LEFT_OUT):
                importlib.import_module(module.name)
    from genai_prices.data_snapshot import get_snapshot

    from headgate.shared.catalog import catalog
    from headgate.shared.routing.router import lexicon, weights

    for read in (get_snapshot, catalog.load, lexicon, weights):
        read()  # files of the program that do not change while it runs
    assert threading.active_count() == 1, "a thread would not be forked along"
    gc.collect()
    gc.freeze()
    gc.enable()


def _main() -> None:
    _import_all()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    _main()
