"""A small shell for the command blocks of the docs: what they use, and no more.

A block holds commands after `$ ` and, below each, lines that it must print. `...` in such a line
stands for anything. A command may set a variable (`id=$(...)`), export one, read a file with `<`,
and write one with `>`. `headgate` is forked from the session's nursery; all else is given to `sh`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.blocks import Block
from tests.support.command import PROGRAM, Ended, headgate, program

PYTHON = [sys.executable]
TIMEOUT_S = 60
IN_FOLDER = "import sys; sys.path.insert(0, '')\n"  # as `python FILE` does for its folder
_CAPTURE = re.compile(r"^(\w+)=\$\((.*)\)$")
_EXPORT = re.compile(r"^export (\w+)=(\S*)$")
_SIMPLE = re.compile(r"^[^|;&`]*$")


class BlockFailed(AssertionError):
    """A block of the docs did not do what its page says; the message begins with its place."""


@dataclass
class Shell:
    """Runs the blocks of one page, in `folder`, against the installation that `env` names.

    `path` is the PATH of what `sh` carries out.
    """

    folder: Path
    env: dict[str, str]
    path: str
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, block: Block) -> None:
        """Carry out a console block; raise BlockFailed for a wrong exit code or output."""
        commands = list(commands_of(block.text))
        for place, (line, expected) in enumerate(commands):
            ended = self._command(line)
            wanted = block.exit_code if place == len(commands) - 1 else 0
            if ended.code != wanted:
                words = f"ended with {ended.code}, not {wanted}\n{ended.out}{ended.err}"
                raise BlockFailed(f"`{line}` {words}")
            if missing := not_printed(expected, ended.out + ended.err):
                printed = f"`{line}` printed:\n{ended.out}{ended.err}"
                raise BlockFailed(f"{missing!r} was not printed; {printed}")

    def run_python(self, block: Block) -> None:
        """Carry out a Python block as a program of its own."""
        argv = [*PYTHON, "-c", IN_FOLDER + block.text]
        ended = program(argv, self.env, cwd=self.folder, timeout_s=TIMEOUT_S)
        if ended.code != 0:
            raise BlockFailed(f"ended with {ended.code}\n{ended.out}{ended.err}")

    def _command(self, line: str) -> Ended:
        if found := _CAPTURE.match(line):
            ended = self._command(found.group(2))
            self.variables[found.group(1)] = ended.out.strip()
            return ended
        if found := _EXPORT.match(line):
            self.env[found.group(1)] = found.group(2)
            return Ended(0, "", "")
        for name, value in self.variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        if line.startswith("headgate ") and _SIMPLE.match(line):
            return self._headgate(shlex.split(line, comments=True)[1:])
        return self._sh(line)

    def _headgate(self, words: list[str]) -> Ended:
        stdin, target = None, None
        if "<" in words:
            at = words.index("<")
            stdin = (self.folder / words[at + 1]).read_bytes()
            words = words[:at] + words[at + 2 :]
        if ">" in words:
            at = words.index(">")
            target = self.folder / words[at + 1]
            words = words[:at] + words[at + 2 :]
        ended = headgate(words, self.env, stdin=stdin, cwd=self.folder, timeout_s=TIMEOUT_S)
        if target is not None:
            target.write_text(ended.out, encoding="utf-8")
        return ended

    def _sh(self, line: str) -> Ended:
        done = subprocess.run(
            ["sh", "-c", line],  # noqa: S607
            env={**os.environ, **self.env, "PATH": self.path},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block, with the lines below it."""
    line, expected = "", []
    joined = re.sub(r"\\\n\s*(?:> )?", "", text)
    for written in joined.splitlines():
        if written.startswith("$ "):
            if line:
                yield line, expected
            line, expected = written.removeprefix("$ ").strip(), []
        elif not line:
            raise ValueError(f"{written!r} stands before the first command")
        elif written.strip():
            expected.append(written)
    if line:
        yield line, expected


def not_printed(expected: list[str], printed: str) -> str | None:
    """Return the first expected line that is not printed below the one before it; `...` is any."""
    lines = iter(printed.splitlines())
    for wanted in expected:
        pattern = re.compile(".*".join(map(re.escape, wanted.strip().split("..."))))
        if not any(pattern.fullmatch(line.strip()) for line in lines):
            return wanted
    return None


def shims(folder: Path) -> Path:
    """Write `headgate`, `celery` and `python` for `sh`; return the folder to put on the PATH."""
    folder.mkdir(parents=True)
    programs = {"headgate": PROGRAM, "celery": [*PYTHON, "-m", "celery"], "python": PYTHON}
    for name, argv in programs.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n', encoding="utf-8")
        path.chmod(0o755)
    return folder
