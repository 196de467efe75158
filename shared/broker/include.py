"""The text of a Lua script with all that it includes.

A file says what it needs by lines at its head: `-- @include lib/bucket` names a file of the folder
`lua`. Two names are no files: this module writes their text from Python, so that both sides agree.
`generated/keys` is the table `KEY` of the names of keys (`keys.py`): a string, or a function of the
parts of the name. `generated/figures` is the table `FIGURES` (`figures.py`). Both hold only what
the script uses, since a script makes them anew in each call.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from headgate.shared.broker import figures
from headgate.shared.broker.keys import Keys

FOLDER = Path(__file__).parent / "lua"

_INCLUDE = re.compile(r"^-- @include (\S+)$", re.MULTILINE)


class IncludeError(Exception):
    """A script includes what does not exist, or itself."""


def script_text(name: str) -> str:
    """Return the whole text of the script of this name. Raise IncludeError."""
    return composed(name, read_file)


def read_file(name: str) -> str | None:
    """Return the text of a file of the folder `lua`, named without its ending, or None."""
    path = FOLDER / f"{name}.lua"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def composed(name: str, read: Callable[[str], str | None]) -> str:
    """Return the file of this name after all that it includes, each once, in order.

    `read` returns the text of a file, or None where there is none. Raise IncludeError for a missing
    file, for a circle, and for a key or a figure that Python does not know.
    """
    texts: dict[str, str] = {}
    generated: set[str] = set()

    def add(file: str, path: tuple[str, ...]) -> None:
        if file in _GENERATED:
            generated.add(file)
            return
        chain = " -> ".join((*path, file))
        if file in path:
            raise IncludeError(f"{chain}: the files include each other in a circle; break it")
        if file in texts:
            return
        text = read(file)
        if text is None:
            raise IncludeError(f"{chain}: there is no file {file}.lua; correct the include")
        if len(needs := _INCLUDE.findall(text)) != text.count("@include"):
            raise IncludeError(f"{chain}: an include must be a line `-- @include NAME`; correct it")
        for need in needs:
            add(need, (*path, file))
        texts[file] = text

    add(name, ())
    body = "".join(texts.values())
    tables = "".join(_GENERATED[file](body) for file in sorted(generated))
    outer = texts.pop(_OUTER, "")
    return f"{tables}{outer}{_OPEN}{''.join(texts.values())}{_CLOSE}" if outer else tables + body


def _used(table: str, body: str) -> list[str]:
    return sorted(set(re.findall(rf"\b{table}\.(\w+)", body)))


def key_table(body: str) -> str:
    """Return the Lua table `KEY` with the keys that this text uses. Raise IncludeError.

    The prefix of all keys is the first of the script's ARGV.
    """
    fields = []
    for name in _used("KEY", body):
        method = getattr(Keys, name, None)
        if method is None:
            raise IncludeError(f"KEY.{name}: Keys has no such method; add it to keys.py")
        parts = list(inspect.signature(method).parameters)[1:]
        text: str = method(Keys("\0prefix\0"), *(f"\0{part}\0" for part in parts))
        words = text.split("\0")
        lua = " .. ".join(
            word if place % 2 else f"'{word}'" for place, word in enumerate(words) if word
        )
        if parts:
            lua = f"function({', '.join(parts)}) return {lua} end"
        fields.append(f"  {name} = {lua},\n")
    return f"local prefix = ARGV[1]\nlocal KEY = {{\n{''.join(fields)}}}\n"


def figure_table(body: str) -> str:
    """Return the Lua table `FIGURES` with the figures that this text uses. Raise IncludeError."""
    fields = []
    for name in _used("FIGURES", body):
        if name not in figures.ALL:
            raise IncludeError(f"FIGURES.{name}: figures.py has no such figure; add it to ALL")
        value = figures.ALL[name]
        lua = f"{value}"
        if isinstance(value, tuple):
            lua = "{" + ", ".join(repr(word) for word in value) + "}"
        fields.append(f"  {name} = {lua},\n")
    return f"local FIGURES = {{\n{''.join(fields)}}}\n"


_OUTER = "lib/prelude"
_OPEN, _CLOSE = "return (function()\n", "\nend)()\n"
"""What follows the prelude stands in one function, which makes long scripts some 10 µs faster.

A new closure finds the locals of an enclosing function at once, but searches for those of its own
block among all that are captured. Nearly every function of a script uses `KEY` and `now`.
"""

_GENERATED = {"generated/keys": key_table, "generated/figures": figure_table}
