"""A small shell for the command blocks of the docs: what they use, and no more.

A block holds commands after `$ ` and, below each, lines that it must print. `...` in such a line
stands for anything. A command may set a variable (`id=$(...)`), export one, read a file with `<`,
and write one with `>`. `curl` is a program of the tests, so that no machine needs it.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT
from tests.docs.blocks import Block
from tests.support.command import PROGRAM, Ended, program

PYTHON = [sys.executable]
CURL = [*PYTHON, "-m", "tests.docs.curl"]
PROGRAMS = {"headgate": PROGRAM, "celery": [*PYTHON, "-m", "celery"], "curl": CURL}
"""The programs that the docs call; each is a Python program, and so forked from the nursery."""

GATEWAY = "127.0.0.1:8080"
"""The address of the gateway in the docs."""

TIMEOUT_S = 60
IN_FOLDER = "import sys; sys.path.insert(0, '')\n"  # as `python FILE` does for its folder
_CAPTURE = re.compile(r"^(\w+)=\$\((.*)\)$")
_EXPORT = re.compile(r"^export (\w+)=(\S*)$")


class BlockFailed(AssertionError):
    """A block of the docs did not do what its page says; the message begins with its place."""


@dataclass
class Shell:
    """Runs the blocks of one page, in `folder`, against the installation that `env` names.

    `gateway`: the address that is asked in place of that of the docs.
    """

    folder: Path
    env: dict[str, str]
    gateway: str = GATEWAY
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, block: Block) -> None:
        """Carry out a console block; raise BlockFailed for a wrong exit code or output."""
        commands = list(commands_of(block.text.replace(GATEWAY, self.gateway)))
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
        argv = [*PYTHON, "-c", IN_FOLDER + block.text.replace(GATEWAY, self.gateway)]
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
        return self._run(shlex.split(line, comments=True))

    def _run(self, words: list[str]) -> Ended:
        if words[0] not in PROGRAMS:
            return Ended(127, "", f"{words[0]}: the tests know {', '.join(PROGRAMS)}")
        stdin, target = None, None
        if "<" in words:
            words, stdin = _without(words, "<", self.folder)
        if ">" in words:
            words, target = _without(words, ">", self.folder)
        argv = [*PROGRAMS[words[0]], *words[1:]]
        given = stdin.read_bytes() if stdin else None
        cwd = ROOT if argv[: len(CURL)] == CURL else self.folder
        ended = program(argv, self.env, stdin=given, cwd=cwd, timeout_s=TIMEOUT_S)
        if target is not None:
            target.write_text(ended.out, encoding="utf-8")
        return ended


def _without(words: list[str], sign: str, folder: Path) -> tuple[list[str], Path]:
    at = words.index(sign)
    return words[:at] + words[at + 2 :], folder / words[at + 1]


def commands_of(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each command of a console block, with the lines below it."""
    line: str = ""
    expected: list[str] = []
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
