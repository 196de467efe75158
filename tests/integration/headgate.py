"""The command line as its users have it: a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-c", "from producer.cli import main; main()"]


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
) -> Ended:
    """The command has been carried out."""
    ended = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        env={**os.environ, **env},
        input=stdin if stdin is not None else b"",
        capture_output=True,
        cwd=cwd,
        timeout=timeout_s,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def start(
    arguments: Sequence[str | Path], env: Mapping[str, str], *, cwd: Path | None = None
) -> "subprocess.Popen[bytes]":
    """The command runs."""
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
    )
