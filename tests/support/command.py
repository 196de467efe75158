"""The command line as its users have it: a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tests.support import nursery
from tests.support.child import BUSY, Running

PROGRAM = [sys.executable, "-c", "from headgate.producer.cli import main; main()"]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return json.loads(self.out)


def headgate(
    arguments: Sequence[str | Path],
    env: Mapping[str, str],
    *,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60,
    fresh: bool = False,
) -> Ended:
    """The command has been carried out; `fresh`: by a new interpreter, which imports what it needs.

    Else it is forked from the session's nursery, where there is one.
    """
    argv = [*PROGRAM, *map(str, arguments)]
    return program(argv, env, stdin=stdin, cwd=cwd, timeout_s=timeout_s, fresh=fresh)


def program(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: bytes | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60,
    fresh: bool = False,
) -> Ended:
    """Run any Python program, given as an argv, in the way of `headgate`."""
    with ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin or b"")
        given.seek(0)
        streams = (given.fileno(), out.fileno(), err.fileno())
        child: Running | None = None
        if not fresh:
            child = nursery.fork(argv, env, str(cwd) if cwd else None, streams)
        if child is None:
            told = {**os.environ, **env}
            child = subprocess.Popen(argv, env=told, stdin=given, stdout=out, stderr=err, cwd=cwd)
        try:
            code = child.wait(timeout_s * BUSY)
        except BaseException:
            child.kill()
            raise
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read().decode(), err.read().decode())


class Started:
    """A command that runs, with a pipe from each of its streams."""

    def __init__(self, child: Running, stdout: BinaryIO, stderr: BinaryIO) -> None:
        self._child = child
        self.pid = child.pid
        self.poll = child.poll
        self.wait = child.wait
        self.kill = child.kill
        self.send_signal = child.send_signal
        self.stdout = stdout
        self.stderr = stderr

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs."""
        return self.poll()

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What is left to read of both streams, once it has ended; raises TimeoutExpired."""
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as threads:
            read = [threads.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
                out, err = (one.result(timeout) for one in read)
            except BaseException:
                self.kill()  # ends the reading, too
                raise
            return out, err


def start(
    arguments: Sequence[str | Path], env: Mapping[str, str], *, cwd: Path | None = None
) -> Started:
    """The command runs."""
    argv = [*PROGRAM, *map(str, arguments)]
    (out, to_out), (err, to_err) = os.pipe(), os.pipe()
    with Path(os.devnull).open("rb") as nothing, open(to_out, "wb") as o, open(to_err, "wb") as e:  # noqa: PTH123
        streams = (nothing.fileno(), to_out, to_err)
        child: Running | None = nursery.fork(argv, env, str(cwd) if cwd else None, streams)
        if child is None:
            told = {**os.environ, **env}
            child = subprocess.Popen(argv, env=told, stdin=nothing, stdout=o, stderr=e, cwd=cwd)
    return Started(child, os.fdopen(out, "rb"), os.fdopen(err, "rb"))
