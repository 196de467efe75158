"""The fenced blocks of README.md and docs/, and what the word after each fence asks for.

A fence reads ```` ```LANGUAGE [WORD ...] ````. Words: `no-run REASON` (a reason of REASONS),
`exit=N` (the exit code of the last command), `file=NAME` (the block is written to that file first).
Blocks of a language outside RUN and SHOWN are a mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests import ROOT

RUN = ("console", "python", "toml")
SHOWN = ("text", "json", "jsonl", "mermaid", "ini")

REASONS = {
    "docker": "needs Docker",
    "kubernetes": "needs a cluster",
    "systemd": "needs systemd and root",
    "package-index": "installs from a package index",
    "live-key": "needs a provider's key and spends money",
    "foreground": "runs until Ctrl-C; the tests have it running already",
    "minutes": "takes minutes; a test of its own runs it",
    "own-test": "a test of its own runs it",
    "other-package": "imports a package that Headgate does not install",
    "servers": "names servers that the reader has and the tests do not",
}
"""Why a block may be left out: a closed list, which a test counts."""

_FENCE = re.compile(r"^( *)(`{3,})(.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `line` is that of its fence."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None = None
    exit_code: int = 0
    file: str | None = None
    unknown: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where it stands, as `docs/concepts.md:12`."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return README.md and the hand-written pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def all_pages() -> list[Path]:
    """Return README.md and every page of docs/, the generated ones too."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page in their order."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    opened: tuple[int, str, str, str] | None = None
    body: list[str] = []
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, body = (number, fence.group(1), fence.group(2), fence.group(3)), []
        elif fence and fence.group(2) == opened[2] and not fence.group(3):
            found.append(_block(page, opened, body))
            opened = None
        else:
            body.append(line.removeprefix(opened[1]))
    if opened is not None:
        raise ValueError(f"{page.name}:{opened[0]}: the fence is not closed")
    return found


def _block(page: Path, opened: tuple[int, str, str, str], body: list[str]) -> Block:
    line, _, _, words = opened
    language, *rest = words.split() or [""]
    reason, exit_code, file, unknown = None, 0, None, []
    while rest:
        word = rest.pop(0)
        if word == "no-run":
            reason = rest.pop(0) if rest else ""
        elif word.startswith("exit="):
            exit_code = int(word.removeprefix("exit="))
        elif word.startswith("file="):
            file = word.removeprefix("file=")
        else:
            unknown.append(word)
    name = page.relative_to(ROOT).as_posix()
    return Block(name, line, language, "\n".join(body) + "\n", reason, exit_code, file, unknown)


def prose_of(page: Path) -> list[tuple[int, str]]:
    """Return the lines outside of fenced blocks, with their numbers."""
    lines = page.read_text(encoding="utf-8").splitlines()
    inside = False
    found = []
    for number, line in enumerate(lines, 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            found.append((number, line))
    return found
